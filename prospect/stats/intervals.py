"""Intervals for shares of wins (Wilson 1927, Clopper & Pearson 1934), and exact tests of counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, betaincinv, gammaln, ndtri

Interval = tuple[float, float]
Counts = tuple[int, int, int]  # wins, ties, losses
EXACT, DRAWN = "exact", "monte carlo"
LEAST = float(np.finfo(np.float64).tiny)  # a p is never 0: what is too small to be written is this
_DRAWS = 10_000
_MOST_TABLES = 10**7
_FAR = 50.0


@dataclass(frozen=True, slots=True)
class P:
    """A two-sided p, and its ``method``: ``exact``, or ``monte carlo`` where cases were drawn."""

    value: float
    method: str


def wilson(wins: float, n: int, level: float = 0.95) -> Interval:
    """Score interval of a share; (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri((1 + level) / 2))
    share, width = wins / n, z * z / n
    middle = (share + width / 2) / (1 + width)
    half = math.sqrt(width * (share * (1 - share) + width / 4)) / (1 + width)
    return max(0.0, middle - half), min(1.0, middle + half)


def clopper_pearson(wins: float, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a share; (0, 1) for n = 0.

    ``wins`` may be a sum of scores in [0, 1], where ties count half: a score varies at most as much as a coin with the
    same mean, so the coin's interval is wide enough.
    """
    if n == 0:
        return 0.0, 1.0
    wins, tail = min(wins, float(n)), (1 - level) / 2
    low = float(betaincinv(wins, n - wins + 1, tail)) if wins > 0 else 0.0
    high = float(betaincinv(wins + 1, n - wins, 1 - tail)) if wins < n else 1.0
    return low, high


def exact_gap(first: tuple[float, int], second: tuple[float, int]) -> Interval:
    """95% interval of the first share less the second, each (sum of scores, n) with its exact interval at 97.5%."""
    (low, high), (other_low, other_high) = (clopper_pearson(*side, level=0.975) for side in (first, second))
    return low - other_high, high - other_low


def rising(function: Callable[[float], float], wanted: float) -> float:
    """Where a function that rises from 0 to 1 has a value, within ±50; infinite for 0 and 1."""
    if wanted <= 0 or wanted >= 1:
        return math.copysign(math.inf, wanted - 0.5)
    low, high = -_FAR, _FAR
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < wanted else (low, middle)
    return (low + high) / 2


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of as uneven a split of decisive rows, were both sides equal."""
    return min(1.0, max(LEAST, 2.0 * float(bdtr(min(wins, losses), wins + losses, 0.5))))


def counts_test(first: Counts, second: Counts, seed: int) -> P:
    """Two-sided p of mean scores as far apart, were all rows of two groups as likely to be in the other one.

    A row's score is 1, ½ or 0. Exact by the hypergeometric distribution of the first group's wins and ties given all
    rows; beyond ten million such tables, of tables that are drawn.
    """
    n, wins, ties, losses = sum(first), *(a + b for a, b in zip(first, second, strict=True))
    total = wins + ties + losses
    observed = abs(total * (2 * first[0] + first[1]) - n * (2 * wins + ties))
    if (min(wins, n) + 1) * (min(ties, n) + 1) > _MOST_TABLES:
        drawn = np.random.default_rng(seed).multivariate_hypergeometric([wins, ties, losses], n, _DRAWS, "marginals")
        reached = np.abs(total * (2 * drawn[:, 0] + drawn[:, 1]) - n * (2 * wins + ties)) >= observed
        return P((1 + int(reached.sum())) / (1 + _DRAWS), DRAWN)
    won, tied = np.arange(min(wins, n) + 1)[:, None], np.arange(min(ties, n) + 1)
    log_chance = _log_choose(wins, won) + _log_choose(ties, tied) + _log_choose(losses, n - won - tied)
    chance = np.exp(log_chance - _log_choose(total, np.array(n)))
    reached = np.abs(total * (2 * won + tied) - n * (2 * wins + ties)) >= observed
    return P(min(1.0, max(LEAST, float(chance[reached].sum() / chance.sum()))), EXACT)


def _log_choose(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of k out of n; minus infinity where there is no such choice."""
    possible = (k >= 0) & (k <= n)
    inside = np.where(possible, k, 0)
    ways: NDArray[np.float64] = gammaln(n + 1) - gammaln(inside + 1) - gammaln(n - inside + 1)
    return np.where(possible, ways, -np.inf)
