"""The mean of one number a prompt, and its 95% interval.

The unit is the prompt: both orders of a comparison and repeated samples of a prompt are one cluster, averaged first.
From 30 prompts on the interval is the percentile bootstrap's; below, or where nothing varies, it is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prospect.stats.intervals import Interval, clopper_pearson

_DRAWS = 10_000
_EXACT_BELOW = 30
_CELLS = 4_000_000  # numbers held at once


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


def estimate(values: NDArray[np.float64], seed: int, low: float = 0.0, high: float = 1.0) -> Estimate | None:
    """Mean and interval of values in [``low``, ``high``], one a prompt; None for no values."""
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    se = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else None
    if n >= _EXACT_BELOW and se:
        return Estimate(mean, se, bootstrap(values, seed), n, "bootstrap")
    span = high - low
    a, b = clopper_pearson(min(max((mean - low) / span, 0.0), 1.0) * n, n)
    return Estimate(mean, se, (low + span * a, low + span * b), n, "exact")


def bootstrap(values: NDArray[np.float64], seed: int, draws: int = _DRAWS) -> Interval:
    """95% percentile interval of the mean.

    A resample is told by how often each distinct value occurs in it, so it is drawn as one multinomial vector: the
    same distribution as n draws with replacement, and five numbers instead of n where scores are 0, ¼, ½, ¾, 1.
    """
    distinct, counts = np.unique(values, return_counts=True)
    rng = np.random.default_rng(seed)
    at_once = max(1, _CELLS // len(distinct))
    means = [
        rng.multinomial(len(values), counts / len(values), size=min(at_once, draws - start)) @ distinct / len(values)
        for start in range(0, draws, at_once)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)
