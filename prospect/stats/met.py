"""Who met whom, and what that says of any two of them: tests of the gap between them that hold for few games, too.

The most telling evidence that there is decides which test it is (``GapTest``); evidence is never mixed. An order of
many stands on all pairs of them, so p values are adjusted (Holm 1979).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from prospect.stats.intervals import EXACT, Counts, counts_test, sign_test
from prospect.stats.paired import permutation

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Met:
    """What was played. ``clusters`` [c, m, m]: row's score against column by prompt, for what is known prompt by
    prompt. ``counts``: (i, j, wins, ties, losses) of what is known by its counts only, where prompts count as
    independent."""

    clusters: Floats
    counts: Sequence[tuple[int, int, int, int, int]]

    @property
    def wins(self) -> Floats:
        """[m, m]: row's score against column, all of it."""
        total: Floats = self.clusters.sum(axis=0)
        for i, j, won, tied, lost in self.counts:
            total[i, j] += won + tied / 2
            total[j, i] += lost + tied / 2
        return total

    @property
    def scores(self) -> Floats:
        """[c, m, m]: row's mean score against column by prompt; NaN where they did not meet."""
        with np.errstate(invalid="ignore"):
            means: Floats = self.clusters / (self.clusters + np.swapaxes(self.clusters, 1, 2))
        return means

    @property
    def tallies(self) -> NDArray[np.int64]:
        """[m, m, 3]: row's wins, ties and losses against column, of what is known by its counts only."""
        found = np.zeros((*self.clusters.shape[1:], 3), dtype=np.int64)
        for i, j, *tally in self.counts:
            found[i, j] += tally
            found[j, i] += tally[::-1]
        return found


class GapTest(StrEnum):
    """In the order in which they are preferred. ``paired``: both met the same others on the same prompts, signs of the
    differences flipped, which is what ``compare.py paired`` does. ``met``: they met each other, signs of score − ½
    flipped by prompt. ``met_counts``: they met each other, the sign test of the counts. ``counts``: both met the same
    third, rows exchanged between the two."""

    paired = "paired"
    met = "met"
    met_counts = "met, by counts"
    counts = "counts"


@dataclass(frozen=True, slots=True)
class Gap:
    """Of one over another: the mean ``difference`` that was tested, its two-sided ``p`` and the p's ``method``."""

    difference: float
    p: float
    test: GapTest
    method: str


def gaps(met: Met, order: Sequence[int], seed: int) -> dict[tuple[int, int], Gap | None]:
    """For any two, the gap of the one that comes first in ``order`` over the other; None where nothing can be said."""
    scores, tallies = met.scores, met.tallies
    return {
        (i, j): _by_prompt(scores, i, j, seed) or _by_counts(scores, tallies, i, j, seed)
        for i, j in combinations(order, 2)
    }


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, step down (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, worst = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = worst
    return adjusted


def _by_prompt(scores: Floats, i: int, j: int, seed: int) -> Gap | None:
    shared = np.isfinite(scores[:, i]) & np.isfinite(scores[:, j])  # [c, m]; nobody meets himself
    on = shared.any(axis=1)
    if on.any():
        between = np.where(shared[on], scores[on, i] - scores[on, j], 0.0)
        return _flipped(between.sum(axis=1) / shared[on].sum(axis=1), GapTest.paired, seed)
    own = scores[:, i, j]
    own = own[np.isfinite(own)]
    return _flipped(2 * own - 1, GapTest.met, seed) if len(own) else None


def _flipped(differences: Floats, test: GapTest, seed: int) -> Gap:
    found = permutation(differences, seed)
    return Gap(math.fsum(differences) / len(differences), found.value, test, found.method)


def _by_counts(scores: Floats, tallies: NDArray[np.int64], i: int, j: int, seed: int) -> Gap | None:
    won, tied, lost = map(int, tallies[i, j])
    if won + tied + lost:
        return Gap((won - lost) / (won + tied + lost), sign_test(won, lost), GapTest.met_counts, EXACT)
    first, second = max(_against_a_third(scores, tallies, i, j), key=_fewer, default=((0, 0, 0), (0, 0, 0)))
    if not _fewer((first, second)):
        return None
    difference = _mean(first) - _mean(second)
    found = counts_test(first, second, seed)
    return Gap(difference, found.value, GapTest.counts, found.method)


def _against_a_third(scores: Floats, tallies: NDArray[np.int64], i: int, j: int) -> Iterator[tuple[Counts, Counts]]:
    """Both one's counts against each of the others, where at least one of the two is known by counts only: where both
    are known by prompt and share none, the prompts are different ones and the two do not compare."""
    for third in range(len(tallies)):
        if tallies[i, third].any() or tallies[j, third].any():
            yield _tally(scores, tallies, i, third), _tally(scores, tallies, j, third)


def _tally(scores: Floats, tallies: NDArray[np.int64], i: int, third: int) -> Counts:
    own = scores[:, i, third]
    known = (own > 0.5).sum(), (own == 0.5).sum(), (own < 0.5).sum()
    won, tied, lost = (int(a + b) for a, b in zip(tallies[i, third], known, strict=True))
    return won, tied, lost


def _fewer(both: tuple[Counts, Counts]) -> int:
    return min(map(sum, both))


def _mean(counts: Counts) -> float:
    return (counts[0] + counts[1] / 2) / sum(counts)


@dataclass(frozen=True, slots=True)
class Apart:
    """Who is told apart from whom at the 5% level. ``adjusted``: p of (upper, lower) by Holm over all that is known of
    the upper one; only those gaps are there that point the way of the order."""

    adjusted: Mapping[tuple[int, int], float]

    def places(self, order: Sequence[int]) -> dict[int, tuple[int, int]]:
        """For each the best and the worst place among those from whom it is not told apart, itself included."""
        found = {i: (place, place) for place, i in enumerate(order, 1)}
        for (a, i), (b, j) in combinations(enumerate(order, 1), 2):
            if self.adjusted.get((i, j), 1.0) >= LEVEL:
                found[i] = (found[i][0], b)
                found[j] = (min(found[j][0], a), found[j][1])
        return found


LEVEL = 0.05


def told_apart(found: Mapping[tuple[int, int], Gap | None], strengths: Floats) -> Apart:
    """From the gaps of ``gaps``, and the strengths by which their order was made.

    A gap that points the other way than the strengths (they stand on all games, it on what both share) says nothing for
    the order, and counts as a comparison that failed.
    """
    known = {pair: gap for pair, gap in found.items() if gap is not None}
    agrees = {pair for pair, gap in known.items() if points_down(gap, strengths, pair)}
    adjusted: dict[tuple[int, int], float] = {}
    for upper in {i for i, _ in agrees}:
        mine = [pair for pair in known if upper in pair]
        p = holm([known[pair].p if pair in agrees else 1.0 for pair in mine])
        adjusted |= {pair: value for pair, value in zip(mine, p, strict=True) if pair in agrees and pair[0] == upper}
    return Apart(adjusted)


def points_down(gap: Gap, strengths: Floats, pair: tuple[int, int]) -> bool:
    """Whether the gap's difference is none, or as the strengths of the two are."""
    return abs(gap.difference) < _SAME or (gap.difference > 0 and strengths[pair[0]] - strengths[pair[1]] > _SAME)


_SAME = 1e-9
