"""Permutation tests of a difference: how often chance alone would give one as large (Fisher 1935; Pitman 1937).

Paired: each prompt's difference could as well have had the other sign. Scores lie on a grid (0, ½, 1, means of two
orders, of repetitions), so the sums of all 2^n choices of signs are counted by convolution, exactly, for hundreds of
prompts. Differences on no grid (weights of labels) are enumerated where they are few; where they are many, signs are
drawn, and p = (1 + draws as large) / (1 + draws), which is valid for any number of draws. Unpaired: the runs' prompts
change places, counted by the multivariate hypergeometric distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Floats = NDArray[np.float64]
Counts = tuple[int, int, int]  # of wins, ties, losses
_GRIDS = (1, 2, 4, 8, 3, 6, 12, 24, 16, 5, 10, 20, 48)  # steps in 1: of means of so many games
_MOST_STEPS = 400_000_000  # additions of the convolution: a second or two
_MOST_TABLES = 4_000_000
_ENUMERATED = 14  # differences on no grid: 2^14 choices of signs
_DRAWS = 10_000
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Permutation:
    """A two-sided p, and whether it is exact rather than drawn."""

    p: float
    exact: bool


def paired(gaps: Floats, seed: int) -> Permutation:
    """Of a mean at least as far from 0, were each difference as likely with the other sign."""
    gaps = gaps[gaps != 0]
    steps = _on_grid(gaps)
    if steps is not None and len(steps) * int(steps.sum()) <= _MOST_STEPS:
        signed = int(np.rint(gaps * (steps[0] / abs(gaps[0]))).sum()) if len(gaps) else 0
        return Permutation(_counted(steps, abs(signed)), True)
    n, reached = len(gaps), abs(math.fsum(gaps)) - 1e-12
    if n <= _ENUMERATED:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return Permutation(float((np.abs(signs @ gaps) >= reached).mean()), True)
    rng = np.random.default_rng(seed)
    beyond = 0
    for _ in range(_DRAWS // _AT_ONCE):
        signs = 1.0 - 2.0 * rng.integers(0, 2, size=(_AT_ONCE, n), dtype=np.int8)
        beyond += int((np.abs(signs @ gaps) >= reached).sum())
    return Permutation((1 + beyond) / (1 + _DRAWS), False)


def of_counts(wins: int, losses: int) -> float:
    """The same of prompts that one side won: the sign test; ties change nothing."""
    return _counted(np.ones(wins + losses, dtype=np.int64), abs(wins - losses))


def unpaired(ours: Counts, theirs: Counts, seed: int) -> Permutation:
    """Of mean scores at least as far apart, were each prompt's result as likely either side's."""
    pool = [a + b for a, b in zip(ours, theirs, strict=True)]
    n, m = sum(ours), sum(theirs)
    if not n or not m:
        return Permutation(1.0, True)
    worth = np.array([1.0, 0.5, 0.0])
    total = float(worth @ np.array(pool))

    def apart(score: Floats | float) -> Floats:
        found: Floats = np.abs(np.asarray(score) / n - (total - np.asarray(score)) / m)
        return found

    reached = float(apart(float(worth @ np.array(ours)))) - 1e-12
    if (pool[0] + 1) * (pool[1] + 1) > _MOST_TABLES:
        drawn = np.random.default_rng(seed).multivariate_hypergeometric(pool, n, size=_DRAWS)
        return Permutation((1 + int((apart(drawn @ worth) >= reached).sum())) / (1 + _DRAWS), False)
    wins, ties = np.meshgrid(np.arange(pool[0] + 1), np.arange(pool[1] + 1), indexing="ij")
    losses = n - wins - ties
    possible = (losses >= 0) & (losses <= pool[2])
    wins, ties, losses = wins[possible], ties[possible], losses[possible]
    logs = _choices(pool[0], wins) + _choices(pool[1], ties) + _choices(pool[2], losses) - _choices(n + m, np.array(n))
    far = apart(wins + ties / 2) >= reached
    return Permutation(min(1.0, math.fsum(np.exp(logs[far]))), True)


def bound(gaps: Floats) -> tuple[float, float]:
    """Between what numbers the paired p lies, without computing it: Hoeffding's inequality above; below, a sum of signs
    is at least its standard deviation with probability 1/10 (Oleszkiewicz 1996)."""
    spread = math.sqrt(math.fsum(gaps * gaps))
    if spread == 0:
        return 1.0, 1.0
    t = abs(math.fsum(gaps)) / spread
    return (0.1 if t <= 1 else 0.0), min(1.0, 2 * math.exp(-t * t / 2))


def _on_grid(gaps: Floats) -> NDArray[np.int64] | None:
    """The differences' sizes as whole numbers of steps; None where they lie on no grid."""
    for steps in _GRIDS:
        scaled = gaps * steps
        if np.abs(scaled - np.rint(scaled)).max(initial=0.0) < 1e-9 * steps:
            return np.abs(np.rint(scaled)).astype(np.int64)
    return None


def _counted(steps: NDArray[np.int64], reached: int) -> float:
    """The share of all choices of signs whose sum is at least ``reached`` away from 0."""
    total = int(steps.sum())
    if reached == 0:
        return 1.0
    share = np.zeros(total + 1)  # of choices, by the sum of the sizes that have a plus
    share[0], top = 1.0, 0
    for size in steps.tolist():
        share[size : top + size + 1] += share[: top + 1].copy()
        top += size
        share[: top + 1] /= 2
    least = (total + reached) // 2  # sum = 2·plus − total
    return min(1.0, 2 * math.fsum(share[least:]))


def _choices(n: int, k: NDArray[np.int64]) -> Floats:
    """log of n over k."""
    found: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found
