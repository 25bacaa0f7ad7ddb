"""Two candidates on the same prompts: the mean of the differences, prompt by prompt.

What both find hard cancels, so the standard error is smaller than that of two separate rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from prospect.stats.bootstrap import EXACT_BELOW, Estimate, estimate_difference
from prospect.stats.intervals import DRAWN, EXACT, LEAST, P, sign_test

Floats = NDArray[np.float64]
_DRAWS = 10_000
_AT_ONCE = 500
_ALL_SIGNS = 30  # differences other than 0: two times 2^15 sums
_FINEST = 240  # parts of 1: means of up to five samples of quarters are whole in it
_MOST_ADDITIONS = 10**8
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Paired:
    """``permutation_p``: of flipping the signs of the differences at random; ``only_a``/``only_b``: prompts that one
    side won (score above ½) and the other did not, with McNemar's exact p. ``n_needed``: prompts with which a
    difference of this size would be found with 80% power at the 5% level; None for no difference. ``p_normal`` and
    ``n_needed`` are None below 30 prompts, whose standard error may be anything."""

    difference: Estimate
    se_unpaired: float | None
    z: float | None
    p_normal: float | None
    permutation_p: float
    permutation_method: str
    only_a: int
    only_b: int
    mcnemar_p: float
    n_needed: int | None


def compare(a: Floats, b: Floats, seed: int) -> Paired | None:
    """Compare scores in [0, 1] of two candidates, one a prompt, in the same order; None for no prompts."""
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    gaps = a - b
    difference = estimate_difference(gaps, seed)
    if difference is None:
        return None
    n, z = len(gaps), None
    if difference.se:
        z = difference.mean / difference.se
    many, permuted = n >= EXACT_BELOW, permutation(gaps, seed)
    only_a, only_b = int(((a > 0.5) & (b <= 0.5)).sum()), int(((b > 0.5) & (a <= 0.5)).sum())
    return Paired(
        difference=difference,
        se_unpaired=math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / n) if n > 1 else None,
        z=z,
        p_normal=max(LEAST, float(2 * ndtr(-abs(z)))) if many and z is not None else None,
        permutation_p=permuted.value,
        permutation_method=permuted.method,
        only_a=only_a,
        only_b=only_b,
        mcnemar_p=sign_test(only_a, only_b),
        n_needed=needed(difference.mean, difference.se * math.sqrt(n)) if many and difference.se else None,
    )


def needed(difference: float, sd: float, power: float = 0.8, level: float = 0.05) -> int | None:
    """Prompts needed to find a mean difference of differences with this standard deviation."""
    if difference == 0 or sd == 0:
        return None
    return math.ceil(((float(ndtri(1 - level / 2)) + float(ndtri(power))) * sd / difference) ** 2)


def permutation(gaps: Floats, seed: int) -> P:
    """Two-sided p of a mean at least as far from 0, were each difference as likely with the other sign.

    The order and the signs of the differences change nothing, so that A against B has the p of B against A.
    """
    sizes, reached = np.sort(np.abs(gaps[gaps != 0])), abs(math.fsum(gaps))
    unit = _grid(sizes)
    if unit is not None:
        return P(_of_whole(np.rint(sizes * unit).astype(np.int64), round(reached * unit)), EXACT)
    if len(sizes) <= _ALL_SIGNS:
        return P(_of_all_signs(sizes, reached), EXACT)
    return P(_of_drawn_signs(sizes, reached, seed), DRAWN)


def permutation_p(gaps: Floats, seed: int) -> float:
    """The p of ``permutation``."""
    return permutation(gaps, seed).value


def _grid(sizes: Floats) -> int | None:
    """The smallest number by which all sizes are whole (scores of 0, ½ and 1 in both orders are quarters); None where
    there is none, or adding them up would take too long."""
    distinct, units = np.unique(sizes), np.arange(1, _FINEST + 1)
    if len(distinct) > _FINEST:
        return None
    steps = np.outer(distinct, units)
    fits = np.abs(steps - np.rint(steps)).max(axis=0, initial=0.0) < _ROUNDING * units
    unit = int(units[fits.argmax()])
    return unit if fits.any() and len(sizes) * unit * math.fsum(sizes) <= _MOST_ADDITIONS else None


def _of_whole(steps: NDArray[np.int64], reached: int) -> float:
    """Exact for hundreds of differences: the distribution of the sum of those that are turned, one after the other."""
    total = int(steps.sum())
    chance, most = np.zeros(total + 1), 0
    chance[0] = 1.0
    for step in map(int, steps):
        half = 0.5 * chance[: most + 1]
        chance[: most + 1] = half
        most += step
        chance[step : most + 1] += half
    tail = float(chance[: (total - reached) // 2 + 1].sum())
    return min(1.0, max(2 * tail, LEAST)) if reached else 1.0


def _of_all_signs(sizes: Floats, reached: float) -> float:
    """Exact for few differences of any size: all signs of one half meet all signs of the other."""
    left, right = (_sums(half) for half in (sizes[::2], sizes[1::2]))
    beyond = len(right) - np.searchsorted(np.sort(right), reached - _ROUNDING - left)
    return min(1.0, 2.0 * float(beyond.sum()) / 2.0 ** len(sizes))


def _sums(sizes: Floats) -> Floats:
    """Under all signs."""
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums - size, sums + size])
    return sums


def _of_drawn_signs(sizes: Floats, reached: float, seed: int) -> float:
    """Monte Carlo; the observed signs count as drawn, so that p is not 0 and keeps its level."""
    rng = np.random.default_rng(seed)
    beyond = 0
    for _ in range(_DRAWS // _AT_ONCE):
        bits = np.frombuffer(rng.bytes(_AT_ONCE * -(-len(sizes) // 8)), dtype=np.uint8).reshape(_AT_ONCE, -1)
        turned = np.unpackbits(bits, axis=1, count=len(sizes)).astype(np.float64) @ sizes
        beyond += int((np.abs(sizes.sum() - 2 * turned) >= reached - _ROUNDING).sum())
    return (1 + beyond) / (1 + _DRAWS)
