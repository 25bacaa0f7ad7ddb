"""Two candidates on the same prompts: the mean of the differences, prompt by prompt.

What both find hard cancels, so the standard error is smaller than that of two separate rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from prospect.stats import permutation
from prospect.stats.bootstrap import Estimate, estimate_difference
from prospect.stats.intervals import sign_test
from prospect.stats.permutation import Permutation

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Paired:
    """``permutation``: of flipping the signs of the differences at random; ``only_a``/``only_b``: prompts that one
    side won (score above ½) and the other did not, with McNemar's exact p. ``n_needed``: prompts with which a
    difference of this size would be found with 80% power at the 5% level; None for no difference."""

    difference: Estimate
    se_unpaired: float | None
    z: float | None
    p_normal: float | None
    permutation: Permutation
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
    if difference.se and difference.method == "bootstrap":  # of few prompts it would be far too large
        z = difference.mean / difference.se
    only_a, only_b = int(((a > 0.5) & (b <= 0.5)).sum()), int(((b > 0.5) & (a <= 0.5)).sum())
    return Paired(
        difference=difference,
        se_unpaired=math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / n) if n > 1 else None,
        z=z,
        p_normal=None if z is None else float(2 * ndtr(-abs(z))),
        permutation=permutation.paired(gaps, seed),
        only_a=only_a,
        only_b=only_b,
        mcnemar_p=sign_test(only_a, only_b),
        n_needed=None if difference.se is None else needed(difference.mean, difference.se * math.sqrt(n)),
    )


def needed(difference: float, sd: float, power: float = 0.8, level: float = 0.05) -> int | None:
    """Prompts needed to find a mean difference of differences with this standard deviation."""
    if difference == 0 or sd == 0:
        return None
    return math.ceil(((float(ndtri(1 - level / 2)) + float(ndtri(power))) * sd / difference) ** 2)
