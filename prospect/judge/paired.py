"""``compare.py paired A B``: two candidates that were judged on the same prompts, against the same baseline answers, by
the same judge with the same prompt. What does not match is refused, because its difference would mean nothing."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from prospect.errors import UserError, nearest
from prospect.judge.commands import Answer
from prospect.judge.judged import Judged, Judgments
from prospect.judge.readers import load_judgments
from prospect.stats import paired as stats
from prospect.stats.met import LEVEL
from prospect.stats.paired import Floats, Paired


def declare(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    add = parser.add_argument
    add("a", metavar="A", help="judgments of one candidate; FILE:NAME where a file has several")
    add("b", metavar="B", help="judgments of the other")
    add("-s", "--seed", type=int, default=0, help="of the bootstrap and the permutations (0)")


def run(given: argparse.Namespace) -> Answer:
    """Compare the two files.

    Raises:
        UserError: a file cannot be read, or the two were not judged alike.
    """
    a, b = load_candidate(given.a), load_candidate(given.b)
    record = compare(a, b, given.seed)
    return Answer(record, _words(record), record["warnings"])


def load_candidate(text: str) -> Judgments:
    """The rows of one candidate, of ``FILE`` or ``FILE:NAME``.

    Raises:
        UserError: the file cannot be read, or does not say which candidate is meant.
    """
    file, _, name = text.rpartition(":")
    if Path(text).is_file() or not file or not Path(file).is_file():
        file, name = text, ""
    judgments = load_judgments(Path(file))
    known = judgments.candidates
    if name and name not in known:
        raise UserError(f"{text}: no candidate `{name}`{nearest(name, known)}; there are {', '.join(known)}")
    if not name and len(known) > 1:
        raise UserError(f"{text}: several candidates: say {file}:NAME with one of {', '.join(known)}")
    return judgments.of(name or known[0])


def compare(a: Judgments, b: Judgments, seed: int) -> dict[str, Any]:
    """The record of A − B, in percent.

    Raises:
        UserError: the judge, its prompt or the baseline's answers differ, or no prompt is common to both.
    """
    common, scores, left_out = shared_scores(a, b)
    check_alike(a, b, common)
    found = stats.compare(scores[0], scores[1], seed)
    assert found is not None
    return {
        "a": a.rows[0].candidate,
        "b": b.rows[0].candidate,
        "baseline": a.rows[0].baseline,
        "judge": a.rows[0].judge,
        "n_common": len(common),
        "win_rate_a": 100 * float(scores[0].mean()),
        "win_rate_b": 100 * float(scores[1].mean()),
        **_figures(found),
        "warnings": [f"{left_out} prompts have a verdict for one of the two only: left out"] if left_out else [],
    }


def shared_scores(a: Judgments, b: Judgments) -> tuple[list[str], tuple[Floats, Floats], int]:
    """Prompts that both have a verdict on, both mean scores of them, and how many prompts only one of the two has.

    Where somebody has met several baselines, scores are of those that both have met on the prompt.
    """
    several = max(len({row.baseline for row in side.rows}) for side in (a, b)) > 1
    ours, theirs = (_cells(side.rows, several) for side in (a, b))
    shared: dict[str, list[tuple[float, float]]] = {}
    for key in sorted(ours.keys() & theirs.keys()):
        shared.setdefault(key[0], []).append((_mean(ours[key]), _mean(theirs[key])))
    prompts = list(shared)
    first, second = (
        np.array([_mean([pair[side] for pair in shared[prompt]]) for prompt in prompts]) for side in (0, 1)
    )
    alone = {key[0] for key in ours.keys() | theirs.keys()} - shared.keys()
    return prompts, (first, second), len(alone)


def _cells(rows: Sequence[Judged], several: bool) -> dict[tuple[str, str], list[float]]:
    """Scores by prompt and, where there are several, by baseline."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row.score is not None:
            found.setdefault((row.prompt_id, row.baseline if several else ""), []).append(row.score)
    return found


def check_alike(a: Judgments, b: Judgments, common: Sequence[str]) -> None:
    """Refuse what was not judged alike.

    Raises:
        UserError: as ``compare``.
    """
    if not common:
        raise UserError(f"{a.name} and {b.name}: no prompt with a verdict is common to both")
    for what, one, other in (
        ("judges", {row.judge for row in a.rows}, {row.judge for row in b.rows}),
        ("judge's prompts or endpoints", {row.setting for row in a.rows}, {row.setting for row in b.rows}),
    ):
        if one != other:
            raise UserError(
                f"{a.name} and {b.name}: different {what} ({', '.join(sorted(one))} and {', '.join(sorted(other))}): "
                "their figures do not compare"
            )
    several, prompts = max(len({row.baseline for row in side.rows}) for side in (a, b)) > 1, set(common)
    marks = [
        {(row.key, row.baseline if several else ""): row.baseline_mark for row in side.rows if row.prompt_id in prompts}
        for side in (a, b)
    ]
    shared = marks[0].keys() & marks[1].keys()
    differ = sum(marks[0][key] != marks[1][key] for key in shared)
    if differ:
        raise UserError(
            f"{a.name} and {b.name}: judged against different answers of the baseline on {differ} of "
            f"{len(shared)} rows: their figures do not compare"
        )


def _mean(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores)


def _figures(found: Paired) -> dict[str, Any]:
    difference = found.difference
    record = asdict(found)
    del record["difference"], record["z"], record["p_normal"], record["se_unpaired"]
    return {
        "diff": 100 * difference.mean,
        "ci95": [100 * end for end in difference.ci95],
        "ci95_method": difference.method,
        "se_paired": None if difference.se is None else 100 * difference.se,
        "se_unpaired": None if found.se_unpaired is None else 100 * found.se_unpaired,
        "z": found.z,
        "p_two_sided": found.p_normal,
        **record,
        "n_still_needed": None if found.n_needed is None else max(0, found.n_needed - difference.n),
    }


def _words(record: dict[str, Any]) -> str:
    low, high = record["ci95"]
    lines = [
        f"{record['a']} less {record['b']}: {record['diff']:+.2f} points (95% interval {low:+.2f} to {high:+.2f}), "
        f"permutation p {record['permutation_p']:.4g}, on {record['n_common']} common prompts",
        f"{record['win_rate_a']:.2f}% and {record['win_rate_b']:.2f}%; only the first won {record['only_a']} prompts, "
        f"only the second {record['only_b']} (McNemar p {record['mcnemar_p']:.4g})",
    ]
    if record["permutation_p"] >= LEVEL:
        more = record["n_still_needed"]
        lines.append(
            "not told apart: no difference at all was seen"
            if record["diff"] == 0
            else "not told apart: too few prompts to say how many it would take"
            if more is None
            else f"not told apart: a difference of this size would take about {more} prompts more (80% power)"
        )
    if (record["permutation_p"] < LEVEL) == (low <= 0 <= high):
        lines.append("the interval and the permutation test do not agree on 0: take the two as barely told apart")
    return "\n".join(lines)
