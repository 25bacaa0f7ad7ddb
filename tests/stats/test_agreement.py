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


def test_total_agreement_of_few_is_not_certain():
    """As wide as the accuracy's exact interval, also for kappa and AC1, whose chance is ½ and ¼ here."""
    few = agree([1, 2] * 4, [1, 2] * 4, (0, 1, 2), range(8), 0)
    least = clopper_pearson(8, 8)[0]
    assert few.accuracy_ci95 == pytest.approx((least, 1.0))
    assert few.kappa_ci95 == pytest.approx(((least - 0.5) / 0.5, 1.0))
    assert few.ac1_ci95 == pytest.approx(((least - 0.25) / 0.75, 1.0))
    many = agree([1, 2] * 100, [1, 2] * 100, (0, 1, 2), range(200), 0)
    assert many.kappa_ci95 == pytest.approx((0.963, 1.0), abs=1e-3)


def test_one_cluster_is_one_item():
    one = agree([1, 2] * 50, [1, 2] * 50, (1, 2), ["a"] * 100, 0)
    assert one.accuracy_ci95 == pytest.approx((0.025, 1.0))
