"""Intervals against published figures, and their coverage in simulation."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from bench.coverage import RATES, coverage
from prospect.stats import bootstrap as module
from prospect.stats.bootstrap import bootstrap, cluster_means, estimate, estimate_difference
from prospect.stats.intervals import clopper_pearson, sign_test, wilson
from tests.planted import plant


def test_known_values():
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert clopper_pearson(8, 10) == pytest.approx((0.4439045, 0.9747893), abs=1e-6)
    assert clopper_pearson(0, 10) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert clopper_pearson(10, 10)[1] == 1.0
    assert wilson(10, 10)[1] == pytest.approx(1.0)
    assert wilson(0, 0) == clopper_pearson(0, 0) == (0.0, 1.0)
    assert sign_test(8, 2) == pytest.approx(0.109375)
    assert sign_test(5, 5) == sign_test(0, 0) == 1.0


def test_bootstrap_is_that_of_the_mean():
    rng = np.random.default_rng(0)
    values = rng.choice([0, 0.25, 0.5, 0.75, 1], size=300)
    low, high = bootstrap(values, seed=0)
    half = 1.96 * np.std(values, ddof=1) / math.sqrt(300)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)
    assert bootstrap(rng.permutation(values), seed=0) == (low, high), "the rows' order changes nothing"
    assert bootstrap(values, seed=1) != (low, high)


def test_bootstrap_of_many_distinct_values_in_parts(monkeypatch):
    values = np.random.default_rng(1).random(500)
    monkeypatch.setattr(module, "_CELLS", 50_000)
    low, high = bootstrap(values, seed=0)
    half = 1.96 * np.std(values, ddof=1) / math.sqrt(500)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)


def test_clusters_are_averaged_first():
    rows = [("a", 1.0), ("a", 0.0), ("b", 1.0), ("c", 0.0), ("c", 0.0)]
    assert cluster_means(rows).tolist() == [0.0, 0.5, 1.0]
    assert cluster_means(reversed(rows)).tolist() == [0.0, 0.5, 1.0]


def test_few_or_equal_values_get_an_exact_interval():
    assert estimate(np.array([]), 0) is None
    few = estimate(np.array([1.0] * 8 + [0.0] * 2), 0)
    assert few is not None
    assert few.ci95 == clopper_pearson(8, 10)
    same = estimate(np.full(800, 0.5), 0)
    assert same is not None
    assert (same.se, same.method) == (0.0, "exact")
    assert 0.46 < same.ci95[0] < 0.5 < same.ci95[1] < 0.54
    rounded = estimate(np.full(100, 1 / 3) + np.arange(100) * 1e-17, 0)
    sure = estimate(1 - np.linspace(1e-6, 1e-4, 100), 0)  # a judge with weights that are all but 1
    one_loss = estimate(np.array([1.0] * 99 + [0.0]), 0)
    for found in (rounded, sure, one_loss):
        assert found is not None
        assert found.method == "exact"
    assert one_loss is not None
    assert one_loss.ci95[1] < 1, "something was lost"
    never = estimate_difference(np.zeros(100), 0)
    always = estimate_difference(np.full(100, -1.0), 0)
    assert never is not None
    assert always is not None
    assert -0.06 < never.ci95[0] < 0 < never.ci95[1] < 0.06
    assert always.ci95[0] == -1.0
    assert always.ci95[1] < -0.9


def paired_games(rng: np.random.Generator, n: int) -> tuple[np.ndarray, float]:
    """Scores of n prompts judged in both orders by a judge with a bias, and their true mean."""
    quality = rng.beta(3, 2, size=n)
    wins = rng.random((2, n)) < np.stack([quality**0.8, quality**1.25])
    return wins.mean(axis=0), float(_TRUE_MEAN)


_Q = np.random.default_rng(99).beta(3, 2, size=2_000_000)
_TRUE_MEAN = (_Q**0.8 + _Q**1.25).mean() / 2


@pytest.mark.parametrize(("n", "least", "most"), [(200, 0.93, 0.97), (12, 0.94, 1.0)])
def test_coverage(n, least, most):
    rng = np.random.default_rng(7)
    inside = 0
    for run in range(600):
        scores, truth = paired_games(rng, n)
        found = estimate(scores, run)
        assert found is not None
        inside += found.ci95[0] <= truth <= found.ci95[1]
    assert least <= inside / 600 <= most


def at_each_rate(times: int) -> list[float]:
    """Coverage of the shipped interval at 0.1, 0.2, …, 0.9; bench/coverage.py has more kinds of scores."""
    return [coverage(rate, 200, "words", times, partial(bootstrap, draws=1000)) for rate in RATES]


def test_coverage_at_each_rate():
    """4,000 simulations a rate: their own standard error is 0.35 points."""
    assert all(0.93 <= share <= 0.97 for share in at_each_rate(4000))


def test_planted_bug_a_90_percent_interval_is_noticed_at_each_rate(monkeypatch):
    plant(monkeypatch, bootstrap, "(0.025, 0.975)", "(0.05, 0.95)")
    assert all(share < 0.93 for share in at_each_rate(2000))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("n", [3, 12, 29])
def test_exact_intervals_cover_whatever_the_scores(n, rate):
    """No simulation: the distribution of a sum of 0, ½ and 1 is known, and so is the coverage."""
    for ties in (0.0, 0.3 * min(rate, 1 - rate), 2 * min(rate, 1 - rate)):
        one = np.array([1 - rate - ties / 2, ties, rate - ties / 2])
        total = np.array([1.0])
        for _ in range(n):
            total = np.convolve(total, one)
        ends = [clopper_pearson(k / 2, n) for k in range(2 * n + 1)]
        covered = sum(p for p, (low, high) in zip(total, ends, strict=True) if low <= rate <= high)
        assert covered >= 0.95 - 1e-9, (n, rate, ties)


def test_planted_bug_orders_as_if_independent_is_noticed():
    """Counting both orders of a prompt as two prompts makes the interval too narrow: coverage must fall."""
    rng = np.random.default_rng(7)
    inside = 0
    for run in range(300):
        scores, truth = paired_games(rng, 200)
        found = estimate(np.repeat(scores, 2), run)
        assert found is not None
        inside += found.ci95[0] <= truth <= found.ci95[1]
    assert inside / 300 < 0.93
