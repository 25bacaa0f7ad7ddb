"""Area under the ROC curve of two groups of scores, and its interval (DeLong, DeLong & Clarke-Pearson 1988)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from prospect.stats.bootstrap import EXACT_BELOW
from prospect.stats.intervals import clopper_pearson

Scores = NDArray[np.float64]


def auc(positive: Scores, negative: Scores) -> float:
    """Probability that a positive's score exceeds a negative's, ties half (Mann-Whitney)."""
    return float(_placements(positive, negative).mean())


def auc_interval(positive: Scores, negative: Scores, z: float = 1.959964) -> tuple[float, float]:
    """95% interval; (0, 1) where a group is empty.

    At least as wide as that of as many wins among the smaller group's number of pairs, where these are too few for
    DeLong's, or hardly one is lost: the area is a mean of such means, each over pairs that share nobody.
    """
    pairs = min(len(positive), len(negative))
    if not pairs:
        return 0.0, 1.0
    mean = auc(positive, negative)
    low, high = clopper_pearson(mean * pairs, pairs)
    if pairs < 2:
        return low, high
    above, below = _placements(positive, negative), _placements(-negative, -positive)
    half = z * math.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))
    if pairs >= EXACT_BELOW and min(mean, 1 - mean) * pairs >= 1:
        return max(0.0, mean - half), min(1.0, mean + half)
    return max(0.0, min(low, mean - half)), min(1.0, max(high, mean + half))


def _placements(positive: Scores, negative: Scores) -> Scores:
    """For each positive the share of negatives below it, ties half."""
    ordered = np.sort(negative)
    below, reached = (np.searchsorted(ordered, positive, side=side) for side in ("left", "right"))
    shares: Scores = (below + reached) / (2 * len(negative))
    return shares
