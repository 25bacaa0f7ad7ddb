"""Paired comparisons: exact small cases, and how often a test rejects what is true."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prospect.stats import paired
from prospect.stats.paired import compare, needed, permutation_p
from tests.planted import plant


def test_all_sign_flips_of_few_differences():
    assert permutation_p(np.array([1.0, 1.0, 1.0]), 0) == 2 / 8
    assert permutation_p(np.array([1.0, -1.0]), 0) == 1.0
    assert permutation_p(np.array([0.0, 0.0]), 0) == 1.0
    assert permutation_p(np.array([0.5, 0.25, -0.25, 0.0]), 0) == 6 / 8


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
