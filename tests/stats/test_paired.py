"""Paired comparisons: exact small cases, and how often a test rejects what is true."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from prospect.stats import paired
from prospect.stats.paired import compare, needed, permutation, permutation_p
from tests.planted import plant


def test_all_sign_flips_of_few_differences():
    assert permutation_p(np.array([1.0, 1.0, 1.0]), 0) == 2 / 8
    assert permutation_p(np.array([1.0, -1.0]), 0) == 1.0
    assert permutation_p(np.array([0.0, 0.0]), 0) == 1.0
    assert permutation_p(np.array([0.5, 0.25, -0.25, 0.0]), 0) == 6 / 8


def every_sign(gaps: np.ndarray) -> float:
    """The p by all 2^n ways to turn n differences."""
    sums = [abs(math.fsum(sign * gap for sign, gap in zip(signs, gaps, strict=True))) for signs in turned(len(gaps))]
    return float(np.mean(np.array(sums) >= abs(math.fsum(gaps)) - 1e-12))


def turned(n: int) -> itertools.product[tuple[int, ...]]:
    return itertools.product((1, -1), repeat=n)


def check_exact() -> None:
    rng = np.random.default_rng(4)
    for values in ([-1, -0.5, 0, 0.5, 1], [-1 / 3, 0.25, 1, 0.05], None):  # quarters, 1/60, and no grid at all
        for n in (1, 2, 5, 9):
            gaps = rng.normal(0.3, 1, size=n) if values is None else rng.choice(values, size=n)
            found = permutation(gaps, 0)
            assert found.method == "exact"
            assert found.value == pytest.approx(every_sign(gaps), rel=1e-12)


def test_against_every_sign():
    check_exact()


def test_planted_bug_a_sum_not_reached_is_noticed(monkeypatch):
    plant(monkeypatch, paired._of_whole, "(total - reached) // 2 + 1", "(total - reached) // 2")
    with pytest.raises(AssertionError):
        check_exact()


def test_hundreds_on_a_grid_are_exact_and_a_p_is_never_0():
    assert permutation(np.ones(30), 0).value == 2.0**-29
    assert permutation(np.array([0.25] * 150 + [-0.25] * 150), 0).value == 1.0
    assert 0 < permutation(np.ones(5000), 0).value < 1e-300
    rng = np.random.default_rng(0)
    near = rng.normal(0.1, 1, size=28)
    assert permutation(near, 0).method == "exact"
    drawn = paired._of_drawn_signs(np.sort(np.abs(near)), abs(math.fsum(near)), 0)
    assert drawn == pytest.approx(permutation(near, 0).value, abs=0.02)
    assert permutation(rng.normal(size=31), 0).method == "monte carlo"


def test_few_prompts_have_no_normal_p_and_no_number_of_prompts():
    found = compare(np.array([1.0, 1.0, 1.0, 1.0, 0.75]), np.zeros(5), 0)
    assert found is not None
    assert (found.permutation_p, found.p_normal, found.n_needed) == (0.0625, None, None)


def test_many_differences_agree_with_the_normal_p():
    rng = np.random.default_rng(3)
    a, b = rng.choice([0, 0.5, 1], p=[0.3, 0.3, 0.4], size=400), rng.choice([0, 0.5, 1], p=[0.38, 0.3, 0.32], size=400)
    found = compare(a, b, 0)
    assert found is not None
    assert found.p_normal is not None
    assert found.permutation_p == pytest.approx(found.p_normal, abs=0.01)


def test_figures():
    a, b = np.array([1, 1, 1, 0, 0.5] * 20), np.array([0, 1, 0.5, 1, 0.5] * 20)
    found = compare(a, b, 0)
    assert found is not None
    assert found.difference.mean == pytest.approx(0.1)
    assert (found.only_a, found.only_b) == (40, 20)
    assert found.mcnemar_p == pytest.approx(0.01349, abs=1e-4)
    spread = float(np.std(a - b, ddof=1))
    assert found.difference.se == pytest.approx(spread / 10)
    assert found.n_needed == math.ceil((2.8015852 * spread / 0.1) ** 2)
    other = compare(b, a, 0)
    assert other is not None
    assert other.difference.mean == pytest.approx(-0.1)


def test_no_difference_has_no_number_of_prompts():
    found = compare(np.full(50, 0.5), np.full(50, 0.5), 0)
    assert found is not None
    assert found.n_needed is found.z is None
    assert found.permutation_p == 1.0
    assert compare(np.array([]), np.array([]), 0) is None


def test_as_many_prompts_as_needed_give_that_power():
    rng = np.random.default_rng(0)
    n = needed(0.1, 0.5)
    assert n == 197
    z = [abs(gaps.mean()) / gaps.std(ddof=1) * math.sqrt(n) for gaps in rng.normal(0.1, 0.5, size=(2000, n))]
    assert 0.77 < np.mean(np.array(z) > 1.96) < 0.83


def false_alarms() -> float:
    rng = np.random.default_rng(5)
    return float(np.mean([permutation_p(rng.choice([-1, -0.5, 0, 0.5, 1.0], size=40), i) < 0.05 for i in range(1000)]))


def test_the_permutation_test_keeps_its_level(monkeypatch):
    monkeypatch.setattr(paired, "_DRAWS", 500)
    assert 0.03 < false_alarms() < 0.07


def test_planted_bug_one_sided_is_noticed(monkeypatch):
    monkeypatch.setattr(paired, "_DRAWS", 500)
    plant(monkeypatch, paired._of_whole, "2 * tail", "tail")
    with pytest.raises(AssertionError):
        assert 0.03 < false_alarms() < 0.07
