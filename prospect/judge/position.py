"""What the order of the answers did, from rows judged in one order or in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from prospect.judge.judged import Judged
from prospect.stats.agreement import kappa
from prospect.stats.bootstrap import cluster_means, estimate_difference, needs_exact
from prospect.stats.intervals import exact_gap


def position(rows: Sequence[Judged], seed: int) -> dict[str, Any] | None:
    """The candidate's score in percent when shown second less that when shown first; None where no order is known.

    Over pairs judged in both orders the gap is paired (interval: bootstrap over prompts), with the share of verdicts
    that did not survive the swap and the kappa between the orders; else two groups of prompts are compared.
    """
    games = [(row, game.candidate_first, game.score) for row in rows for game in row.games if game.score is not None]
    if not games:
        return None
    first = [score for _, shown_first, score in games if shown_first]
    second = [score for _, shown_first, score in games if not shown_first]
    share = [score if shown_first else 1 - score for _, shown_first, score in games]
    record: dict[str, Any] = {
        "n": len(games),
        "n_candidate_first": len(first),
        "win_candidate_first": _mean(first),
        "win_candidate_second": _mean(second),
        "gap_second_minus_first": None,
        "gap_se": None,
        "ci95": None,
        "mean_p_first_token": _mean(share),
    }
    return record | (_paired(rows, seed) or _unpaired(first, second))


def _paired(rows: Sequence[Judged], seed: int) -> dict[str, Any] | None:
    both = both_orders(rows)
    gap = estimate_difference(cluster_means((prompt, second - first) for prompt, first, second in both), seed)
    if gap is None:
        return None
    confusion = np.zeros((3, 3))
    for _, a, b in both:
        confusion[_side(a), _side(b)] += 1
    between = float(kappa(confusion))
    return {
        "gap_second_minus_first": 100 * gap.mean,
        "gap_se": None if gap.se is None else 100 * gap.se,
        "ci95": [100 * gap.ci95[0], 100 * gap.ci95[1]],
        "pairs_in_both_orders": len(both),
        "flip_rate": 100 * sum(_side(a) != _side(b) for _, a, b in both) / len(both),
        "kappa_between_orders": between if math.isfinite(between) else None,
    }


def both_orders(rows: Sequence[Judged]) -> list[tuple[str, float, float]]:
    """(prompt, score when shown first, score when shown second) of rows with a verdict in both orders."""
    means = [(row.prompt_id, row.mean(candidate_first=True), row.mean(candidate_first=False)) for row in rows]
    return [(prompt, a, b) for prompt, a, b in means if a is not None and b is not None]


def _unpaired(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    if len(first) < 2 or len(second) < 2:
        return {}
    gap = 100 * (math.fsum(second) / len(second) - math.fsum(first) / len(first))
    error = 100 * math.sqrt(float(np.var(first, ddof=1)) / len(first) + float(np.var(second, ddof=1)) / len(second))
    interval = [gap - 1.96 * error, gap + 1.96 * error]
    if needs_exact(np.array(first)) or needs_exact(np.array(second)):
        ends = exact_gap((math.fsum(second), len(second)), (math.fsum(first), len(first)))
        interval = [min(interval[0], 100 * ends[0]), max(interval[1], 100 * ends[1])]
    return {"gap_second_minus_first": gap, "gap_se": error, "ci95": [max(-100.0, interval[0]), min(100.0, interval[1])]}


def _side(score: float) -> int:
    return 0 if score < 0.5 else 1 if score == 0.5 else 2


def _mean(values: Sequence[float]) -> float | None:
    return 100 * math.fsum(values) / len(values) if values else None
