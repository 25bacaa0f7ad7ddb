"""Permutation tests against all permutations written out, and how often they reject what is true."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binom, fisher_exact

from prospect.stats import permutation
from prospect.stats.permutation import bound, of_counts, paired, unpaired
from tests.planted import plant

GRIDS = ([-1, -0.5, 0, 0.5, 1], [0.25, -0.75, 1, 0], [1 / 3, -2 / 3, 1], [0.123, -0.456, 0.789, 0.5])


def by_hand(gaps: np.ndarray) -> float:
    """All 2^n choices of signs."""
    sums = [abs(np.dot(signs, gaps)) for signs in itertools.product((1, -1), repeat=len(gaps))]
    return float(np.mean(np.array(sums) >= abs(gaps.sum()) - 1e-12))


def check_against_all_signs() -> None:
    rng = np.random.default_rng(0)
    for grid, n in itertools.product(GRIDS, range(1, 9)):
        for gaps in rng.choice(grid, size=(4, n)):
            found, low_high = paired(gaps, 0), bound(gaps)
            assert found.exact
            assert found.p == pytest.approx(by_hand(gaps))
            assert low_high[0] <= found.p + 1e-12
            assert found.p <= low_high[1] + 1e-12


def test_all_signs_of_few_differences():
    check_against_all_signs()


def test_planted_bug_one_tail_is_noticed(monkeypatch):
    plant(monkeypatch, permutation._counted, "2 * math.fsum", "math.fsum")
    with pytest.raises(AssertionError):
        check_against_all_signs()


def test_a_few_that_are_known():
    assert paired(np.full(5, 0.5), 0).p == of_counts(5, 0) == 2 / 32
    assert paired(np.array([1.0, -1.0]), 0).p == paired(np.array([0.0, 0.0]), 0).p == 1.0
    assert paired(np.array([0.5, 0.25, -0.25, 0.0]), 0).p == 6 / 8
    assert of_counts(0, 0) == 1.0


def test_hundreds_on_a_grid_are_exact():
    """Three sizes of 450 differences: the same by a sum over binomial counts of each size."""
    found = paired(np.repeat([1.0, -1.0, 0.5, -0.25], [60, 40, 60, 40]), 0)
    plus = [binom.pmf(np.arange(n + 1), n, 0.5) for n in (100, 60, 40)]
    sums = (
        (2 * np.arange(101) - 100)[:, None, None]
        + (2 * np.arange(61) - 60)[None, :, None] / 2
        + (2 * np.arange(41) - 40)[None, None, :] / 4
    )
    shares = plus[0][:, None, None] * plus[1][None, :, None] * plus[2][None, None, :]
    assert found.exact
    assert found.p == pytest.approx(float(shares[np.abs(sums) >= 40].sum()))


def test_many_on_no_grid_are_drawn():
    rng = np.random.default_rng(1)
    gaps = rng.normal(size=400)
    found = paired(gaps + 0.5, 0)
    assert (found.exact, found.p) == (False, 1 / 10_001)
    assert found == paired(gaps + 0.5, 0)


def false_alarms() -> float:
    rng = np.random.default_rng(5)
    return float(np.mean([paired(rng.choice([-1, -0.5, 0, 0.5, 1.0], size=40), i).p < 0.05 for i in range(1000)]))


def test_the_test_keeps_its_level():
    assert 0.03 < false_alarms() < 0.06


def test_counts_of_two_runs_are_fishers():
    for ours, theirs in (((60, 0, 40), (55, 0, 45)), ((5, 0, 0), (0, 0, 5)), ((3, 0, 9), (0, 0, 2))):
        expected = fisher_exact([[ours[0], ours[2]], [theirs[0], theirs[2]]])
        if sum(ours) == sum(theirs):  # of unequal numbers, Fisher's orders tables by their probability instead
            assert unpaired(ours, theirs, 0).p == pytest.approx(expected.pvalue)
    assert unpaired((0, 0, 0), (3, 0, 0), 0).p == 1.0


def test_counts_with_ties_by_hand():
    ours, theirs = [1, 1, 0.5], [0, 0.5, 0, 0]
    pool = [*ours, *theirs]
    apart = [
        abs(np.mean([pool[i] for i in some]) - np.mean([pool[i] for i in range(7) if i not in some]))
        for some in itertools.combinations(range(7), 3)
    ]
    found = unpaired((2, 1, 0), (0, 1, 3), 0)
    assert found.exact
    assert found.p == pytest.approx(np.mean(np.array(apart) >= abs(np.mean(ours) - np.mean(theirs)) - 1e-12))


def test_large_counts_are_drawn():
    found = unpaired((4000, 2000, 1000), (3000, 2000, 2000), 0)
    assert (found.exact, found.p) == (False, 1 / 10_001)
