"""``compare.py aggregate FILE``: every figure of judgments that exist; no judge is asked.

The record has AlpacaEval's raw figures under their own names (rows as units, in percent), ours (prompts as units), what
the order did, the length-controlled rate (``lc``, with all about it in ``length_control``), rates by category, and the
figures that the file's own tool would print (``published``). Several candidates in one file: ``models`` has a record of
each. Files of runs (HALOs' and our results) give ``runs``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prospect.errors import UserError
from prospect.judge import lengths, published, ratings
from prospect.judge.commands import Answer
from prospect.judge.judged import Judged, Judgments
from prospect.judge.lengths import Instruments
from prospect.judge.options import Control, length_flags
from prospect.judge.position import both_orders, position
from prospect.judge.readers import is_judgments, load_judgments
from prospect.judge.runs import load_runs
from prospect.judge.tables import is_result, load_rows
from prospect.stats.bootstrap import Estimate, cluster_means, estimate


def declare(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    add = parser.add_argument
    add("file", metavar="FILE", help="judgments of compare.py, AlpacaEval, MT-Bench or Arena-Hard, or a results file")
    length_flags(parser)
    add("--lc-c", type=float, metavar="C", help="AlpacaEval's L1 penalty at this constant (none: maximum likelihood)")
    add("--baseline", metavar="MODEL", help="against whom, in a file that compares everybody with everybody")
    add("-s", "--seed", type=int, default=0, help="of the bootstrap (0)")


def run(given: argparse.Namespace) -> Answer:
    """Read the file and compute.

    Raises:
        UserError: the file is of no known kind, or --lc-data lacks what --lc alpaca needs.
    """
    path = Path(given.file)
    rows = load_rows(path)
    if is_result(rows[0]):
        return _of_runs(path)
    if ratings.is_rating(rows[0]) and not is_judgments(rows[0]):
        return ratings.aggregate(path, rows, given.baseline, given.seed)
    judgments = load_judgments(path, given.baseline)
    instruments = lengths.instruments_for(Control(given.lc), Path(given.lc_data) if given.lc_data else None)
    if given.lc_c is not None and instruments is None:
        raise UserError("--lc-c is the constant of AlpacaEval's penalty: it needs --lc alpaca --lc-data DIR")
    if given.lc_c is not None and not given.lc_c > 0:
        raise UserError(f"--lc-c {given.lc_c:g}: the constant of AlpacaEval's penalty is above 0")
    records = [
        figures(judgments.of(name), Control(given.lc), instruments, given.seed, given.lc_c)
        for name in judgments.candidates
    ]
    warnings = [*judgments.notes, *(warning for record in records for warning in record["warnings"])]
    text = "\n".join(_words(record) for record in records)
    record = records[0] if len(records) == 1 else {"file": str(path), "kind": judgments.kind, "models": records}
    return Answer(record, text, warnings)


def figures(
    judgments: Judgments, control: Control, instruments: Instruments | None, seed: int, c: float | None = None
) -> dict[str, Any]:
    """The record of one candidate's rows."""
    rows = judgments.rows
    scores = [row.score for row in rows if row.score is not None]
    controlled = None if control is Control.off else lengths.controlled(rows, instruments, seed, c)
    style = None if control is Control.off else lengths.styled(rows, seed)
    shown = position(rows, seed)
    return {
        "file": judgments.name,
        "kind": judgments.kind,
        "candidate": rows[0].candidate,
        "baseline": rows[0].baseline,
        "judge": ", ".join(sorted({row.judge for row in rows})),
        **published.alpaca_eval(scores),
        "n_failed": len(rows) - len(scores),
        "bounds_if_failed_all_loss_all_win": _bounds(rows),
        "by_prompt": _by_prompt(rows, seed),
        "best_of_n": _best_of_n(rows, seed),
        "position": shown,
        "lc": controlled["rate"] if controlled else None,
        "length_control": controlled,
        "style_control": style,
        "categories": _by_category(rows, seed),
        "published": _published(judgments, seed),
        "warnings": _warnings(rows, scores, shown, controlled),
    }


def _published(judgments: Judgments, seed: int) -> dict[str, Any] | None:
    if judgments.kind == "mt_bench":
        return published.mt_bench(judgments.rows)
    if judgments.kind == "ours" and both_orders(judgments.rows):
        return {"as_mt_bench": published.mt_bench(judgments.rows)}
    if judgments.kind == "arena_hard":
        return published.arena_hard(judgments.rows, seed)
    return None


def estimate_record(found: Estimate | None) -> dict[str, Any] | None:
    """An estimate for JSON, in percent."""
    if found is None:
        return None
    return {
        "win_rate": 100 * found.mean,
        "standard_error": None if found.se is None else 100 * found.se,
        "ci95": [100 * end for end in found.ci95],
        "ci95_method": found.method,
        "prompts": found.n,
    }


def _by_prompt(rows: Sequence[Judged], seed: int) -> dict[str, Any] | None:
    return estimate_record(estimate(cluster_means((r.prompt_id, r.score) for r in rows if r.score is not None), seed))


def _by_category(rows: Sequence[Judged], seed: int) -> dict[str, Any]:
    """Where there are several; rows without one stand under an empty name."""
    names = sorted({row.category for row in rows})
    found = {name: _by_prompt([row for row in rows if row.category == name], seed) for name in names}
    return {name: part for name, part in found.items() if part} if len(names) > 1 else {}


def _best_of_n(rows: Sequence[Judged], seed: int) -> dict[str, Any] | None:
    """Where prompts have several samples: the rate if a selector as good as the judge chose the best of each."""
    best: dict[str, float] = {}
    counts: dict[str, int] = {}
    for row in rows:
        if row.score is not None:
            best[row.prompt_id] = max(row.score, best.get(row.prompt_id, 0.0))
            counts[row.prompt_id] = counts.get(row.prompt_id, 0) + 1
    if not counts or max(counts.values()) == 1:
        return None
    found = estimate_record(estimate(cluster_means(best.items()), seed))
    return {"n": [min(counts.values()), max(counts.values())], **(found or {})}


def _bounds(rows: Sequence[Judged]) -> list[float]:
    return [100 * math.fsum(row.bounds[side] for row in rows) / len(rows) for side in (0, 1)]


def _warnings(
    rows: Sequence[Judged], scores: Sequence[float], shown: dict[str, Any] | None, controlled: dict[str, Any] | None
) -> list[str]:
    name, found = rows[0].candidate, []
    if len({(row.judge, row.setting) for row in rows}) > 1:
        found.append(f"{name}: rows of several judges or judge's prompts are mixed in one figure")
    if len(scores) < len(rows):
        found.append(f"{name}: {len(rows) - len(scores)} of {len(rows)} rows have no verdict and are left out")
    if shown and shown["ci95"] and not shown["ci95"][0] <= 0 <= shown["ci95"][1]:
        liked = "second" if shown["gap_second_minus_first"] > 0 else "first"
        found.append(f"{name}: the judge prefers the answer shown {liked}")
    if controlled is None:
        return found
    if controlled["rate"] is None:
        found.append(f"{name}: no length-controlled rate: {controlled['reason']}")
    elif controlled["extrapolated"]:
        found.append(
            f"{name}: the length-controlled rate is extrapolated (only {controlled['overlap']:.1f}% of the answers are "
            "longer, or only as many shorter): quote the raw one"
        )
    if controlled.get("unknown_instructions"):
        found.append(f"{name}: {controlled['unknown_instructions']} instructions are not in --lc-data: left out of lc")
    if str(controlled.get("method", "")).startswith("alpaca") and set(scores) <= {0.0, 0.5, 1.0}:
        found.append(
            f"{name}: preferences are whole; AlpacaEval's instruments are of weighted ones against gpt4_1106_preview"
        )
    return found


def _words(record: dict[str, Any]) -> str:
    """One candidate for a reader."""
    who = f"{record['candidate']} against {record['baseline'] or 'baseline'}"
    ours = record["by_prompt"]
    if ours is None:
        return f"{who}: no verdicts"
    low, high = ours["ci95"]
    lowest, highest = record["bounds_if_failed_all_loss_all_win"]
    lacking = f" ({lowest:.2f} to {highest:.2f}% if all lost games were lost or won)" if record["n_failed"] else ""
    lines = [
        f"{who}, judge {record['judge'] or 'unknown'}: win rate {ours['win_rate']:.2f}% (95% interval {low:.2f} to "
        f"{high:.2f}) on {ours['prompts']} prompts: {record['n_wins']} wins, {record['n_draws']} ties, "
        f"{record['n_wins_base']} losses, {record['n_failed']} without a verdict{lacking}"
    ]
    control = record["length_control"]
    if control and control["rate"] is not None:
        low, high = control["ci95"]
        mark = ", extrapolated" if control["extrapolated"] else ""
        lines.append(f"length-controlled {control['rate']:.2f}% ({low:.2f} to {high:.2f}; {control['method']}{mark})")
    shown = record["position"]
    if shown and shown["ci95"]:
        low, high = shown["ci95"]
        gap = shown["gap_second_minus_first"]
        lines.append(f"shown second rather than first {gap:+.2f} points ({low:+.2f} to {high:+.2f})")
    for name, part in record["categories"].items():
        low, high = part["ci95"]
        lines.append(
            f"  {name or '(none)'}: {part['win_rate']:.2f}% ({low:.2f} to {high:.2f}), {part['prompts']} prompts"
        )
    if record["published"] and record["kind"] != "ours":
        lines.append(f"as {record['kind']} prints it: " + ", ".join(f"{k} {v}" for k, v in record["published"].items()))
    return "\n".join(lines)


def _of_runs(path: Path) -> Answer:
    records = [run.record() for run in load_runs([path])]
    lines = [
        f"{record['exp_name']}: {100 * record['win_rate_over_total']:.2f}% of {record['total']} won, "
        f"{record['baseline_wins']} lost, {record['ties']} ties, {record['unparsed']} without a verdict"
        for record in records
    ]
    return Answer({"file": str(path), "kind": "runs", "runs": records}, "\n".join(lines))
