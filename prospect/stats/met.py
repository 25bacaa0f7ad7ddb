"""Who met whom, and what that says of any two of them: tests of the gap between them that hold for few games, too.

What connects the two decides which test it is (``GapTest``). An order of many stands on all pairs of them, so p values
are adjusted (Holm 1979).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from prospect.stats.intervals import EXACT, Counts, counts_test, sign_test
from prospect.stats.paired import permutation
from prospect.stats.strengths import Floats, strengths

LEVEL = 0.05
_SAME = 1e-9


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
    """``met``: they met each other, and nothing else connects them: signs of score − ½ flipped by prompt.
    ``met_counts``: the same, known by counts only: the sign test. ``all_games``: they met each other and others: signs
    of what each prompt adds to the gap of strengths flipped. ``paired``: they only met the same others on the same
    prompts: signs of the differences flipped, which is what ``compare.py paired`` does. ``counts``: both met the same
    third, rows exchanged between the two."""

    met = "met"
    met_counts = "met, by counts"
    all_games = "all games"
    paired = "paired"
    counts = "counts"


@dataclass(frozen=True, slots=True)
class Gap:
    """Of one over another: the mean ``difference`` that was tested (in score, or in what a prompt adds to the slope of
    the likelihood), its two-sided ``p`` and the p's ``method``."""

    difference: float
    p: float
    test: GapTest
    method: str


def gaps(met: Met, order: Sequence[int], seed: int) -> dict[tuple[int, int], Gap | None]:
    """For any two, the gap of the one that comes first in ``order`` over the other; None where nothing can be said."""
    scores, tallies, games = met.scores, met.tallies, met.wins + met.wins.T
    found: dict[tuple[int, int], Gap | None] = {}
    for i, j in combinations(order, 2):
        if not games[i, j]:
            found[i, j] = _paired(scores, i, j, seed) or _third(scores, tallies, i, j, seed)
        elif _connected_otherwise(games, i, j):
            found[i, j] = _all_games(met, i, j, seed)
        else:
            found[i, j] = _met(scores, i, j, seed) or _met_counts(tallies, i, j)
    return found


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, step down (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, worst = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = worst
    return adjusted


def _connected_otherwise(games: Floats, i: int, j: int) -> bool:
    """Whether the two are connected without their own games."""
    others = games.copy()
    others[i, j] = others[j, i] = 0
    _, group = connected_components(others > 0, directed=False)
    return bool(group[i] == group[j])


def _paired(scores: Floats, i: int, j: int, seed: int) -> Gap | None:
    shared = np.isfinite(scores[:, i]) & np.isfinite(scores[:, j])  # [c, m]; nobody meets himself
    on = shared.any(axis=1)
    if not on.any():
        return None
    between = np.where(shared[on], scores[on, i] - scores[on, j], 0.0)
    return _flipped(between.sum(axis=1) / shared[on].sum(axis=1), GapTest.paired, seed)


def _met(scores: Floats, i: int, j: int, seed: int) -> Gap | None:
    own = scores[:, i, j]
    own = own[np.isfinite(own)]
    return _flipped(2 * own - 1, GapTest.met, seed) if len(own) else None


def _met_counts(tallies: NDArray[np.int64], i: int, j: int) -> Gap:
    won, tied, lost = map(int, tallies[i, j])
    return Gap((won - lost) / (won + tied + lost), sign_test(won, lost), GapTest.met_counts, EXACT)


def _all_games(met: Met, i: int, j: int, seed: int) -> Gap:
    """Of two who are the same, each prompt's games might as well be told with their names exchanged.

    Taken as one they have a strength, and so has everybody else; what either scores beyond that is the slope of the
    likelihood along their gap, and an exchange of the names turns its sign (Hemerik, Goeman & Finos 2020). Its sum has
    the sign of the gap of the strengths.
    """
    wins, rest = met.wins, [k for k in range(len(met.wins)) if k not in (i, j)]
    one = np.zeros((1, len(rest) + 1, len(rest) + 1))
    one[0, 1:, 1:] = wins[np.ix_(rest, rest)]
    one[0, 0, 1:], one[0, 1:, 0] = wins[[i, j]][:, rest].sum(axis=0), wins[:, [i, j]][rest].sum(axis=1)
    theta = strengths(one)[0]
    chance = np.full(len(wins), 0.5)
    chance[rest] = expit(theta[0] - theta[1:])
    played = met.clusters + np.swapaxes(met.clusters, 1, 2)
    beyond = met.clusters - played * chance  # [c, m, m]: of row i or j against column
    by_prompt = [(beyond[:, i] - beyond[:, j]).sum(axis=1)]
    for a, b, *tally in met.counts:
        for side, other, sign in ((a, b, 1), (b, a, -1)):
            for who, turn in ((i, 1), (j, -1)):
                if side == who:
                    scores = np.repeat((1.0, 0.5, 0.0)[::sign], tally)
                    by_prompt.append(turn * (scores - chance[other]))
    added = np.concatenate(by_prompt)
    return _flipped(added[np.abs(added) > _SAME], GapTest.all_games, seed)


def _flipped(differences: Floats, test: GapTest, seed: int) -> Gap:
    found = permutation(differences, seed)
    return Gap(math.fsum(differences) / max(1, len(differences)), found.value, test, found.method)


def _third(scores: Floats, tallies: NDArray[np.int64], i: int, j: int, seed: int) -> Gap | None:
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
