"""Kappa, AC1 and their intervals. Real figures are in tests/judge/test_agree.py."""

from __future__ import annotations

import numpy as np
import pytest

from prospect.stats import agreement
from prospect.stats.agreement import ac1, accuracy, agree, kappa
from prospect.stats.intervals import clopper_pearson
from tests.planted import plant


def test_known_values():
    table = np.array([[20.0, 5.0], [10.0, 15.0]])
    assert float(accuracy(table)) == pytest.approx(0.7)
    assert float(kappa(table)) == pytest.approx(0.4)
    assert float(ac1(table)) == pytest.approx((0.7 - 0.495) / (1 - 0.495))
    rare = np.array([[118.0, 5.0], [2.0, 0.0]])  # high agreement, kappa below 0: the paradox that AC1 answers
    assert float(kappa(rare)) < 0
    assert float(ac1(rare)) == pytest.approx(0.94, abs=0.01)


def test_nothing_to_agree_on():
    none = agree([], [], (0, 1), [], 0)
    assert (none.n, none.accuracy, none.kappa) == (0, None, None)
    same = agree([1, 1], [1, 1], (0, 1), [0, 1], 0)
    assert (same.accuracy, same.kappa, same.confusion) == (1.0, None, ((0, 0), (0, 2)))


def coverage(runs: int = 150) -> float:
    """Of the accuracy's interval where three items of a cluster stand and fall together."""
    inside = 0
    for run in range(runs):
        rng = np.random.default_rng(run)
        right = np.repeat(rng.random(80) < 0.7, 3)
        first = rng.integers(0, 2, size=240)
        found = agree(list(first), list(np.where(right, first, 1 - first)), (0, 1), list(np.repeat(range(80), 3)), run)
        assert found.accuracy_ci95 is not None
        inside += found.accuracy_ci95[0] <= 0.7 <= found.accuracy_ci95[1]
    return inside / runs


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(agreement, "_DRAWS", 200)


def test_interval_covers():
    assert 0.88 <= coverage() <= 0.99


def test_planted_bug_items_as_clusters_is_noticed(monkeypatch):
    plant(monkeypatch, agree, "k, names = len(labels), {", "clusters = range(len(first)); k, names = len(labels), {")
    assert coverage() < 0.88


def test_where_all_agree_the_intervals_are_exact():
    """Resamples of equals are all alike, and would leave points."""
    labels = [0, 1] * 6
    found = agree(labels, labels, (0, 1), range(12), 0)
    low, _ = clopper_pearson(12, 12)
    assert found.accuracy_ci95 == pytest.approx((low, 1.0))
    assert found.kappa_ci95 == pytest.approx((2 * low - 1, 1.0)), "chance is one half"
    assert found.ac1_ci95 == pytest.approx((2 * low - 1, 1.0))
