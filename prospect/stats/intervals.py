"""Intervals for a share of wins (Wilson 1927, Clopper & Pearson 1934) and the sign test."""

from __future__ import annotations

import math

from scipy.special import bdtr, betaincinv, ndtri

Interval = tuple[float, float]


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
    tail = (1 - level) / 2
    low = float(betaincinv(wins, n - wins + 1, tail)) if wins > 0 else 0.0
    high = float(betaincinv(wins + 1, n - wins, 1 - tail)) if wins < n else 1.0
    return low, high


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of as uneven a split of decisive rows, were both sides equal."""
    return min(1.0, 2.0 * float(bdtr(min(wins, losses), wins + losses, 0.5)))
