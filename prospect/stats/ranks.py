"""Places in a table: a p of each one's gap to the first, and which places a candidate may have.

Two are told apart where a permutation test of their gap, adjusted for the number of tests (Holm 1979), is below 5%. A
candidate may have the places of all that it is not told apart from, and those between: so an interval of places says no
more than the tests do, and two whose p is large share places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from prospect.stats import permutation
from prospect.stats.permutation import Counts, Permutation

Floats = NDArray[np.float64]
_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the gap between two: differences (first less second) by prompt, where both are known prompt by
    prompt, else the counts of both against a common baseline."""

    gaps: Floats | None = None
    counts: tuple[Counts, Counts] | None = None

    @property
    def lead(self) -> float:
        """Above 0 where the first is ahead."""
        if self.gaps is not None:
            return float(self.gaps.sum())
        assert self.counts is not None
        ours, theirs = ((won + tied / 2) / max(won + tied + lost, 1) for won, tied, lost in self.counts)
        return ours - theirs

    def test(self, seed: int) -> Permutation:
        """The permutation test."""
        if self.gaps is not None:
            return permutation.paired(self.gaps, seed)
        assert self.counts is not None
        return permutation.unpaired(*self.counts, seed)

    def settled(self, level: float) -> float | None:
        """A p without the work of the test, where a bound says on which side of a level it lies; else None."""
        if self.gaps is None:
            return None
        low, high = permutation.bound(self.gaps)
        return high if high < level else 1.0 if low >= _LEVEL else None


@dataclass(frozen=True, slots=True)
class Place:
    """``p``: of the gap to the first, adjusted for as many tests as were made; None for the first, and where nothing
    can be said. ``test`` is ``paired`` or ``unpaired``; ``contradicted``: the prompts that both have say the opposite
    of the order, which more prompts have made."""

    rank: int
    rank95: tuple[int, int]
    p: float | None
    exact: bool | None = None
    test: str | None = None
    contradicted: bool = False


def places(order: Sequence[int], evidence: Callable[[int, int], Evidence | None], seed: int) -> list[Place]:
    """One a candidate of ``order`` (best first); ``evidence`` gives what is known of two, the better one first."""
    m = len(order)
    known = {(i, j): evidence(order[i], order[j]) for i, j in combinations(range(m), 2)}
    usable = {pair: found for pair, found in known.items() if found is not None and found.lead >= 0}
    tests = {j: usable[0, j].test(seed) for j in range(1, m) if (0, j) in usable}
    firsts = _adjusted({(0, j): test.p for j, test in tests.items()})
    others = {pair: found for pair, found in usable.items() if pair[0] > 0}
    level = _LEVEL / max(len(others), 1)
    p = {pair: found.settled(level) for pair, found in others.items()}
    apart = firsts | _adjusted({pair: others[pair].test(seed).p if q is None else q for pair, q in p.items()})
    table = []
    for i in range(m):
        alike = [j for j in range(m) if j == i or apart.get((min(i, j), max(i, j)), 1.0) >= _LEVEL]
        found = known.get((0, i))
        table.append(
            Place(
                rank=i + 1,
                rank95=(1 + alike[0], 1 + alike[-1]),
                p=firsts.get((0, i)),
                exact=tests[i].exact if i in tests else None,
                test=None if i not in tests else "paired" if usable[0, i].gaps is not None else "unpaired",
                contradicted=found is not None and found.lead < 0,
            )
        )
    return table


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, step down (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, worst = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = worst
    return adjusted


def _adjusted(p: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    return dict(zip(p, holm(list(p.values())), strict=True))
