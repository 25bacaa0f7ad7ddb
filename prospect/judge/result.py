"""What a comparison leaves behind: a line of result.jsonl, a CSV file of games, three lines on the screen.

A line has every key of the original's results (date, total, seed, exp_name, judge, candidate, baseline, config; wins
and losses count pairs, lengths are in characters here) and the new ones.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from prospect.errors import MachineError
from prospect.judge.games import Judgment, Outcome
from prospect.judge.hosted import Spent
from prospect.judge.judges import Session
from prospect.judge.options import Options
from prospect.judge.prompt import JudgePrompt
from prospect.judge.reply import plain
from prospect.judge.samples import Match, Side
from prospect.judge.speech import Verdict
from prospect.judge.summary import Answers, Position, Summary
from prospect.stats.bootstrap import Estimate

SCHEMA = 1


def line(
    options: Options, match: Match, session: Session, prompt: JudgePrompt | None, summary: Summary, judgments: Path
) -> str:
    """The comparison as one line of JSON, without its end; ``judgments`` is where its pairs are written down."""
    record = {
        "date": str(datetime.now()),
        "total": summary.total,
        "seed": options.seed,
        "exp_name": match.exp_name,
        "judge": session.judge,
        "candidate": _side(match.candidate, summary.candidate, summary.wins),
        "baseline": _side(match.baseline, summary.baseline, summary.losses),
        "config": json.loads(json.dumps(match.config), parse_constant=str),  # NaN is no JSON
        "schema": SCHEMA,
        "prompts": summary.prompts,
        "win_rate": summary.win_rate.mean if summary.win_rate else None,
        "se": summary.win_rate.se if summary.win_rate else None,
        "ci95": summary.win_rate.ci95 if summary.win_rate else None,
        "ci95_method": summary.win_rate.method if summary.win_rate else None,
        "bounds": summary.bounds,
        "balanced": summary.balanced,
        "games_lost": {"games": summary.lost.games, **asdict(summary.lost)},
        "ties": summary.ties,
        "inconsistent": summary.inconsistent,
        "half": summary.half,
        "truncated": summary.truncated,
        "refused": summary.refused,
        "unparsed": summary.unparsed,
        "failed": summary.failed,
        "unanswered": summary.unanswered,
        "decisive": asdict(summary.decisive),
        "length_ratio": summary.length_ratio,
        "lc": summary.length_control,
        "position": _position(summary.position),
        "repeat_sd": summary.noise,
        "strong": strong(session.judgments),
        "read_from": dict(Counter(judgment.how for judgment in session.judgments if judgment.how)),
        "outside_labels": _mean_outside(session.judgments),
        "orders": str(options.orders) if session.endpoint else None,
        "endpoint": session.endpoint,
        "judge_answered_as": session.answered_as,
        "prompt": {"name": prompt.name, "version": prompt.version, "sha256": prompt.sha256} if prompt else None,
        "spent": asdict(session.spent) | {"maybe_billed_unseen": session.spent.tally.maybe_billed}
        if session.endpoint
        else None,
        "rows": match.counts,
        "judgments": str(judgments),
        **options.own.record(),
    }
    return json.dumps(record, allow_nan=False)


def append(file: Path, text: str) -> None:
    """Add one line; several processes may do so at once, and a line torn by an earlier crash stays apart.

    Raises:
        MachineError: the disk refuses.
    """
    try:
        with file.open("a+b") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            size = handle.seek(0, os.SEEK_END)
            handle.seek(max(size - 1, 0))
            start = b"" if handle.read(1) in (b"", b"\n") else b"\n"
            handle.write(start + text.encode() + b"\n")
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise MachineError(f"{file}: {error.strerror}; the verdicts are kept: the same command writes them") from None


def write_csv(file: Path, session: Session) -> None:
    """Every game: who was shown first, what the judge said, and who won (empty where there is no verdict)."""
    columns = ("prompt_id", "sample", "shown_first", "winner", "reason", "conversation", "candidate", "baseline")
    try:
        with file.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow((*columns, "judge_text"))
            for judgment in session.judgments:
                pair, first = judgment.game.pair, judgment.game.candidate_first
                shown = "candidate" if first else "baseline"
                texts = (pair.conversation, pair.candidate, pair.baseline, judgment.text)
                writer.writerow((pair.prompt_id, pair.sample, shown, winner(judgment), judgment.reason, *texts))
    except OSError as error:
        raise MachineError(f"{file}: {error.strerror}") from None


def winner(judgment: Judgment) -> str:
    """``candidate``, ``baseline``, ``tie``, or nothing."""
    if judgment.verdict is None:
        return ""
    if judgment.verdict is Verdict.tie:
        return "tie"
    return "candidate" if judgment.score is not None and judgment.score > 0.5 else "baseline"


def three_lines(options: Options, match: Match, session: Session, summary: Summary) -> str:
    """The comparison for a reader."""
    s = summary
    same_file = match.candidate.file == match.baseline.file
    who = f"{plain(match.exp_name)}: " if same_file else ""
    sides = f"{plain(match.candidate.name)} against {plain(match.baseline.name)}"
    rate = f"win rate {_percent(s.win_rate)}" if s.win_rate else "no pair has all its games"
    prompts = f"{s.win_rate.n if s.win_rate else 0} of {s.prompts}" if s.undecided else s.prompts
    split = f" ({s.inconsistent} split by order)" if s.inconsistent else ""
    ratio = "–" if s.length_ratio is None else f"{s.length_ratio:.2f}"
    lacking = {"half judged": s.half, "truncated": s.truncated, "refused": s.refused}
    lacking |= {"unparsed": s.unparsed, "failed": s.failed}
    counts = [f"{n} {name}" for name, n in lacking.items() if n or name in ("unparsed", "failed")]
    calls = f"{s.total - s.undecided} of {s.total} pairs have all their games, {', '.join(counts)}"
    if session.endpoint:
        calls += f"; {_spent(session.spent)}"
    return "\n".join(
        (
            f"{who}{sides}, judge {plain(session.judge)}: {rate}: "
            f"{s.wins} wins, {s.ties} ties{split}, {s.losses} losses on {prompts} prompts{_lost_words(s)}",
            f"length ratio {ratio}{_length_words(s.length_control)}; distinct answers "
            f"{s.candidate.distinct_share:.0%} and {s.baseline.distinct_share:.0%}{_position_words(s.position)}",
            f"{calls}; appended to {options.results}",
        )
    )


def _lost_words(s: Summary) -> str:
    """Games without a verdict, and between which rates they leave the truth."""
    if not s.lost.games:
        return ""
    low, high = s.bounds
    return f"; {s.lost.games} of {s.lost.of} games lost: {low:.1%} to {high:.1%} if all of these were lost or won"


def _length_words(control: Mapping[str, Any] | None) -> str:
    if not control or control["rate"] is None:
        return ""
    low, high = (100 * end for end in control["ci95"])
    mark = ", extrapolated" if control["extrapolated"] else ""
    return f"; at equal length {control['rate']:.1%} ({low:.1f} to {high:.1f}{mark})"


def _spent(spent: Spent) -> str:
    """What the judge took, for a reader."""
    tokens = f"{spent.prompt_tokens:,} + {spent.completion_tokens:,} tokens"
    if spent.usd is not None and spent.usd_now is not None:
        tokens += f" (${spent.usd:.4g}, ${spent.usd_now:.4g} of it now)"
    return (
        f"{spent.asked} requests answered now, {tokens} in all, {spent.tally.maybe_billed} requests maybe billed unseen"
    )


def strong(judgments: Sequence[Judgment]) -> dict[str, int] | None:
    """How many games were won or lost by far (A>>B), where the judge says so; Arena-Hard counts these three times."""
    by_far = [judgment.score for judgment in judgments if judgment.strong]
    return {"wins": by_far.count(1.0), "losses": by_far.count(0.0)} if by_far else None


def _mean_outside(judgments: Sequence[Judgment]) -> float | None:
    """The mean probability that the judge put on other tokens than the labels, where it gave weights."""
    outside = [judgment.outside for judgment in judgments if judgment.outside is not None]
    return sum(outside) / len(outside) if outside else None


def verdict_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """One line a game, safe for a terminal."""
    return [
        f"{judgment.game.pair.prompt_id[:8]}/{judgment.game.pair.sample} "
        f"{'candidate' if judgment.game.candidate_first else 'baseline'} first: "
        f"{winner(judgment) or '–'} {plain(judgment.text or judgment.reason)[:100]}".rstrip()
        for outcome in outcomes
        for judgment in outcome.judgments
    ]


def _percent(found: Estimate) -> str:
    low, high = found.ci95
    exact = "" if found.method == "bootstrap" else f", {found.method}"
    return f"{found.mean:.1%} (95% interval {100 * low:.1f} to {100 * high:.1f}{exact})"


def _position(position: Position | None) -> dict[str, Any] | None:
    if position is None:
        return None
    gap = position.gap
    return {
        "candidate_second_minus_first": gap.mean,
        "ci95": gap.ci95,
        "flip_rate": position.flip_rate,
        "pairs": position.pairs,
    }


def _position_words(position: Position | None) -> str:
    if position is None:
        return ""
    low, high = (100 * end for end in position.gap.ci95)
    gap = 100 * position.gap.mean
    return (
        f"; shown second rather than first {gap:+.1f} points ({low:+.1f} to {high:+.1f}), {position.flip_rate:.0%} flip"
    )


def _side(side: Side, answers: Answers, wins: int) -> dict[str, Any]:
    return {
        "name": side.name,
        "wins": wins,
        "lengths": answers.lengths,
        "length_unit": "characters",
        "distinct": answers.distinct,
        "answers_sha256": answers.sha256,
        "file": str(side.file),
        "column": side.column,
        "sha256": hashlib.sha256(side.file.read_bytes()).hexdigest(),
    }
