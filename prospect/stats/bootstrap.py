"""The mean of one number a prompt, and its 95% interval.

The unit is the prompt: both orders of a comparison and repeated samples of a prompt are one cluster, averaged first.
From 30 prompts on the interval is the percentile bootstrap's. Below, or where nothing varies, or all but a few prompts'
worth of score is on one side, it is exact: no resample can show what was hardly seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prospect.stats.intervals import Interval, clopper_pearson, exact_gap

_DRAWS = 10_000
EXACT_BELOW = 30  # prompts
_SEEN = (
    4  # prompts' worth: with fewer than 3.7 more than 2.5% of the resamples have none, and the interval ends at 0 or 1
)
_SAME = 1e-9  # values that differ by less do not vary
_CELLS = 400_000  # numbers held at once
_ROWS_A_COUNT = 16  # so many rows are drawn in the time that one count of a multinomial vector takes


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over ``n`` prompts; ``se`` is None for fewer than two, ``method`` is ``bootstrap`` or ``exact``."""

    mean: float
    se: float | None
    ci95: Interval
    n: int
    method: str


def cluster_means(values: Iterable[tuple[str, float]]) -> NDArray[np.float64]:
    """One mean a cluster, of (cluster, value) rows; sorted, so that the rows' order changes nothing."""
    groups: dict[str, list[float]] = {}
    for cluster, value in values:
        groups.setdefault(cluster, []).append(value)
    return np.sort(np.array([math.fsum(group) / len(group) for group in groups.values()], dtype=np.float64))


def estimate(scores: NDArray[np.float64], seed: int) -> Estimate | None:
    """Mean and interval of scores in [0, 1], one a prompt; None for none."""
    return _estimate(scores, seed, _exact_score, needs_exact(scores))


def estimate_difference(differences: NDArray[np.float64], seed: int) -> Estimate | None:
    """Mean and interval of differences in [-1, 1], one a prompt; None for none."""
    moved, balance = math.fsum(np.abs(differences)), abs(math.fsum(differences))
    too_narrow = _too_narrow(differences, min(moved, len(differences) - balance))
    return _estimate(differences, seed, _exact_difference, too_narrow)


def needs_exact(scores: NDArray[np.float64]) -> bool:
    """Whether a bootstrap of scores in [0, 1], one a prompt, would be too narrow."""
    return _too_narrow(scores, min(math.fsum(scores), math.fsum(1 - scores)))


def _too_narrow(values: NDArray[np.float64], seen: float) -> bool:
    """``seen``: how many prompts' worth of score there is to be drawn more or less often."""
    return len(values) < EXACT_BELOW or seen < _SEEN - _SAME or float(np.ptp(values)) < _SAME


def _estimate(
    values: NDArray[np.float64], seed: int, exact: Callable[[NDArray[np.float64]], Interval], too_narrow: bool
) -> Estimate | None:
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    se = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else None
    if too_narrow:
        return Estimate(mean, se, exact(values), n, "exact")
    return Estimate(mean, se, bootstrap(values, seed), n, "bootstrap")


def _exact_score(scores: NDArray[np.float64]) -> Interval:
    return clopper_pearson(min(math.fsum(scores), len(scores)), len(scores))


def _exact_difference(differences: NDArray[np.float64]) -> Interval:
    """Of the mean gain less that of the mean loss."""
    n = len(differences)
    return exact_gap((math.fsum(np.maximum(differences, 0.0)), n), (math.fsum(np.maximum(-differences, 0.0)), n))


def bootstrap(values: NDArray[np.float64], seed: int, draws: int = _DRAWS) -> Interval:
    """95% percentile interval of the mean; the rows' order changes nothing."""
    means = np.concatenate(list(_resampled_means(values, np.random.default_rng(seed), draws)))
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _resampled_means(
    values: NDArray[np.float64], rng: np.random.Generator, draws: int
) -> Iterator[NDArray[np.float64]]:
    """Means of ``draws`` resamples, in parts.

    Where few values occur often (scores are 0, ¼, ½, ¾, 1) a resample is told by how often each of them is in it, and
    drawn as one multinomial vector: the same distribution as n draws with replacement, and five numbers instead of n.
    """
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    few = len(distinct) * _ROWS_A_COUNT < n
    at_once = max(1, _CELLS // (len(distinct) if few else n))
    rows = np.repeat(distinct, counts)
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        if few:
            yield rng.multinomial(n, counts / n, size=size) @ distinct / n
        else:
            yield rows[rng.integers(0, n, size=(size, n), dtype=np.int32)].mean(axis=1)
