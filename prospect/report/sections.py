"""What stands above the pairs on a comparison's page: one part a figure, with the words that say what it means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from prospect.judge import agree
from prospect.judge.early import anytime
from prospect.judge.lengths import of_outcomes
from prospect.judge.options import Control
from prospect.judge.summary import Summary, summarise
from prospect.report import drawing, panels
from prospect.report.comparison import Comparison, Line, name_of
from prospect.report.drawing import Bar, Part
from prospect.stats.bootstrap import Estimate
from prospect.stats.intervals import clopper_pearson


def sections(c: Comparison) -> dict[str, Any]:
    """What the template shows above the pairs."""
    if not c.outcomes:
        return _of_record(c)
    seed = int(c.record.get("seed") or 0)
    summary = summarise(c.outcomes, seed)
    if c.record.get("ci95_method") == "anytime":  # it stopped early, which only the line of results knows
        summary = replace(summary, win_rate=anytime(summary.win_rate, list(c.outcomes)))
    return {
        "under": f"judged by {c.judge} on {summary.prompts:,} prompts{_date(c.record)}",
        "rate": _rate(c, summary.win_rate) if summary.win_rate else None,
        "notes": list(_notes(c, summary)),
        "split": _split(summary),
        "lengths": _lengths(c, summary, seed),
        "order": _order(c, summary, seed),
        "people": _people(c, seed),
        "forests": list(_forests(c, summary.win_rate, seed)),
    }


def _of_record(c: Comparison) -> dict[str, Any]:
    """The same from a line of results alone: without judgments there is no more to be said."""
    line, own = c.record, _bar(c.record)
    total, wins, losses = (int(n) for n in (line["total"], line["candidate"]["wins"], line["baseline"]["wins"]))
    parts = [Part("wins", wins, "win"), Part("losses", losses, "loss"), Part("neither", total - wins - losses, "none")]
    found = Estimate(own.mean, None, (own.low, own.high), total, "exact") if own else None
    return {
        "under": f"judged by {c.judge} on {total:,} pairs{_date(line)}",
        "rate": _rate(c, found) if found else None,
        "notes": ["There are no judgments beside these results, so there is no list of pairs."],
        "split": {"figure": drawing.stack(parts, "wins and losses"), "parts": parts, "words": ""},
        "lengths": None,
        "order": None,
        "people": None,
        "forests": list(_forests(c, found, 0)),
    }


def _rate(c: Comparison, found: Estimate) -> dict[str, Any]:
    low, high = found.ci95
    how = {"bootstrap": "", "exact": ", exact", "anytime": ", valid at every look"}.get(
        found.method, f", {found.method}"
    )
    interval = f"{100 * low:.1f} to {100 * high:.1f}{how}"
    words = "The interval holds 50%: on these prompts the two cannot be told apart."
    if low > 0.5:
        words = f"{c.candidate} is preferred: the whole interval lies above 50%."
    elif high < 0.5:
        words = f"{c.baseline} is preferred: the whole interval lies below 50%."
    label = f"win rate {found.mean:.1%}, 95% interval {interval}"
    figure = drawing.interval(found.mean, low, high, label)
    return {"value": f"{found.mean:.1%}", "interval": interval, "figure": figure, "words": words}


def _notes(c: Comparison, s: Summary) -> Iterator[str]:
    if s.undecided:
        states = {"cut off": s.truncated, "refused": s.refused, "without a verdict": s.unparsed, "unanswered": s.failed}
        states |= {"with a verdict for some of their games": s.half}
        counts = ", ".join(f"{n} {state}" for state, n in states.items() if n)
        yield (
            f"{s.undecided} pairs are not counted ({counts}), as {s.lost.games:,} of {s.lost.of:,} games have no "
            f"verdict. With them the win rate would lie between {s.bounds[0]:.1%} (all lost) and {s.bounds[1]:.1%} "
            "(all won)."
        )
    if s.position is not None and not s.position.gap.ci95[0] <= 0 <= s.position.gap.ci95[1]:
        liked = "second" if s.position.gap.mean > 0 else "first"
        whole = "; each pair of the win rate was judged in both orders, so it is balanced" if s.balanced else ""
        yield f"The judge prefers the answer shown {liked}{whole}."
    for name, answers in ((c.candidate, s.candidate), (c.baseline, s.baseline)):
        if answers.distinct_share < 0.5 and s.total > 1:
            yield f"{name}: only {answers.distinct} of {len(answers.lengths)} answers differ."
    answered = c.record.get("judge_answered_as") or ()
    if len(answered) > 1:
        yield f"Replies come from more than one model: {', '.join(map(str, answered))}."


def _split(s: Summary) -> dict[str, Any]:
    parts = [
        Part("wins", s.wins, "win"),
        Part("ties", s.ties, "tie"),
        Part("losses", s.losses, "loss"),
        Part("not counted", s.undecided, "none"),
    ]
    shown = [part for part in parts if part.count or part.colour != "none"]
    words = f"{s.total:,} pairs on {s.prompts:,} prompts."
    if s.inconsistent:
        words += f" {s.inconsistent:,} of the ties are opposite verdicts in the two orders."
    label = ", ".join(f"{part.count} {part.name}" for part in shown)
    return {"figure": drawing.stack(shown, label), "parts": shown, "words": words}


def _lengths(c: Comparison, s: Summary, seed: int) -> dict[str, Any] | None:
    points = panels.by_length(c.outcomes, seed)
    if not points:
        return None
    # Where verdicts were read anew since, what the line of results says of lengths holds no more.
    known = "lc" in c.record and s.win_rate and c.record.get("win_rate") == s.win_rate.mean
    control = (c.record["lc"] if known else of_outcomes(c.outcomes, Control.auto, None, seed)) or {"rate": None}
    ratio = "" if s.length_ratio is None else f" In all, the candidate writes {s.length_ratio:.2f} times as much."
    if control["rate"] is not None:
        low, high = (100 * end for end in control["ci95"])
        ratio += f" At equal length the win rate would be {control['rate']:.1%} ({low:.1f} to {high:.1f})"
        ratio += ", but hardly any answers allow to tell: quote the raw one." if control["extrapolated"] else "."
    label = "; ".join(f"{p.x:+.0f} characters: {p.mean:.0%}" for p in points)
    return {
        "figure": drawing.curve(
            points,
            panels.fitted_line(c.outcomes, control.get("coefficients") or (), points),
            f"win rate by difference in length: {label}",
            "characters more than the baseline",
        ),
        "words": "A judge that likes long answers gives a line that rises to the right." + ratio,
        "table": [(f"{p.x:+,.0f}", f"{p.mean:.1%}", f"{100 * p.low:.1f} to {100 * p.high:.1f}", p.n) for p in points],
    }


def _order(c: Comparison, s: Summary, seed: int) -> dict[str, Any] | None:
    found = panels.crossing(c.outcomes, seed)
    if found is None or s.position is None:
        return None
    gap, (low, high) = 100 * s.position.gap.mean, (100 * end for end in s.position.gap.ci95)
    bars = (panels.bar("candidate shown first", found.first), panels.bar("candidate shown second", found.second))
    return {
        "figure": drawing.forest(bars, f"win rate {found.first.mean:.0%} shown first, {found.second.mean:.0%} second"),
        "words": f"Shown second rather than first: {gap:+.1f} points (95% interval {low:+.1f} to {high:+.1f}). "
        f"{s.position.flip_rate:.0%} of {s.position.pairs:,} verdicts change with the order"
        f"{'' if found.kappa is None else f'; kappa between the orders: {found.kappa:.2f}'}.",
        "table": list(zip(("won", "tied", "lost"), found.counts, strict=True)),
    }


def _people(c: Comparison, seed: int) -> dict[str, Any] | None:
    """How far the judge agrees with the people who have seen some of the pairs."""
    if not c.people:
        return None
    found = agree.report(c.people, seed)
    if found["acc_parsed"] is None:
        return None
    low, high = found["acc_parsed_ci95"]
    kappa = "" if found["kappa_parsed"] is None else f"; kappa {found['kappa_parsed']:.2f}"
    words = f"The judge agrees with people on {found['acc_parsed']:.1%} of {found['n_parsed']:,} pairs "
    words += f"(95% interval {100 * low:.1f} to {100 * high:.1f}){kappa}."
    if found["people"]:
        among = found["people"]
        words += f" People among themselves: {among['mean_agreement']:.1%}, kappa {among['mean_kappa']:.2f}."
    counts = found["confusion"]["counts"]
    names = ("tie", c.baseline, c.candidate)
    return {
        "words": words,
        "names": names,
        "table": [(names[i], [int(n) for n in row]) for i, row in enumerate(counts)],
    }


def _forests(c: Comparison, own: Estimate | None, seed: int) -> Iterator[dict[str, Any]]:
    judges, agreement = panels.by_judge(c.judge, c.outcomes, c.opinions, seed)
    if judges:
        yield {"title": "Judges", "figure": drawing.forest(judges, _heard(judges)), "words": f"{'; '.join(agreement)}."}
    categories = panels.by_category(c.outcomes, seed)
    if categories:
        yield {
            "title": "By category",
            "figure": drawing.forest(categories, _heard(categories)),
            "words": "Each row has fewer prompts than the whole, and among many rows one will stand out by chance.",
        }
    runs = [bar for line in c.others if name_of(line) != c.candidate and (bar := _bar(line))]
    if own and runs:
        bars = sorted((*runs, panels.bar(c.candidate, own, own=True)), key=lambda bar: -bar.mean)
        yield {
            "title": "Runs",
            "figure": drawing.forest(bars, _heard(bars)),
            "words": f"Against {c.baseline}, all judged by {c.judge} with the same prompt.",
        }


def _bar(line: Line) -> Bar | None:
    """A line of results as a row of a forest; HALOs' own lines have counts and no interval."""
    if line.get("ci95") and line.get("win_rate") is not None:
        low, high = line["ci95"]
        return Bar(name_of(line), float(line["win_rate"]), float(low), float(high))
    wins, losses = int(line["candidate"]["wins"]), int(line["baseline"]["wins"])
    decided = wins + losses
    return Bar(name_of(line), wins / decided, *clopper_pearson(wins, decided)) if decided else None


def _heard(bars: Sequence[Bar]) -> str:
    return "; ".join(f"{bar.name} {bar.mean:.0%}" for bar in bars)


def _date(record: Line) -> str:
    return f", {str(record['date'])[:10]}" if record.get("date") else ""


def origin(record: Line) -> Iterator[tuple[str, str]]:
    """What tells where the figures come from, as far as it is known."""
    prompt, spent = record.get("prompt") or {}, record.get("spent") or {}
    yield "Made by", "compare.py"
    for name, key in (
        ("Judge", "judge"),
        ("Endpoint", "endpoint"),
        ("Orders", "orders"),
        ("Date", "date"),
        ("Seed", "seed"),
    ):
        if record.get(key) is not None:
            yield name, str(record[key])
    if record.get("judge_answered_as"):
        yield "Answered as", ", ".join(map(str, record["judge_answered_as"]))
    if prompt:
        yield "Judge's prompt", f"{prompt.get('name')}, version {prompt.get('version')}, {prompt.get('sha256')}"
    for side in ("candidate", "baseline"):
        given = record.get(side) or {}
        if given.get("file"):
            yield (
                side.title(),
                f"{given.get('name')}: column {given.get('column')} of {given['file']}, SHA-256 {given.get('sha256')}",
            )
    if spent:
        yield (
            "Requests",
            f"{spent.get('asked')} asked for this line, {spent.get('maybe_billed_unseen')} maybe billed unseen",
        )
        yield "Tokens", f"{spent.get('prompt_tokens'):,} in, {spent.get('completion_tokens'):,} out"
    if record.get("judgments"):
        yield "Judgments", str(record["judgments"])
