"""Length control: real judgments are in tests/judge/test_aggregate.py; here is what simulation can show."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit

from prospect.errors import MachineError
from prospect.stats import length, logistic, strengths, sweep
from prospect.stats.bootstrap import estimate
from prospect.stats.length import matched, prior_fit, rows
from prospect.stats.logistic import Normal, fit, fit_l1
from prospect.stats.sweep import estimate_prior
from tests.planted import plant


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(length, "_DRAWS", 200)


def judged(n: int, slope: float, level: float, gap: float, seed: int, effects: np.ndarray | None = None) -> length.Rows:
    """Scores of a judge that likes length by ``slope``, of a candidate ``gap`` standard deviations longer."""
    rng = np.random.default_rng(seed)
    longer = rng.normal(gap, 1.0, size=n) * 300
    baseline = rng.integers(2000, 3000, size=n)
    candidate = np.maximum(1, baseline + longer).astype(int)
    x = np.tanh((baseline - candidate) / np.std(baseline - candidate, ddof=1))
    chance = expit(slope * x + level + (0 if effects is None else effects))
    scores = (rng.random((2, n)) < chance).mean(axis=0)
    return rows(
        list(scores), list(zip(map(int, baseline), map(int, candidate), strict=True)), [f"{i:05}" for i in range(n)]
    )


def check_seen_through() -> None:
    data = judged(2000, slope=-0.6, level=0.0, gap=1.0, seed=0)
    found = prior_fit(data, 0)
    assert found is not None
    assert data.scores.mean() > 0.57, "longer answers win, although they are no better"
    assert found.rate == pytest.approx(0.5, abs=0.025)
    assert found.ci95[0] < 0.5 < found.ci95[1]
    near = matched(data, 0)
    assert near is not None
    assert near.ci95[0] < 0.5 < near.ci95[1]
    assert not found.extrapolated


def test_a_judge_that_likes_length_is_seen_through():
    check_seen_through()


def share_inside(runs: int = 80) -> float:
    inside = 0
    for run in range(runs):
        slope = float(np.random.default_rng(900 + run).normal(*length.OWN_PRIOR))
        found = prior_fit(judged(250, slope=slope, level=0.4, gap=0.3, seed=run), run)
        assert found is not None
        inside += found.ci95[0] <= expit(0.4) <= found.ci95[1]
    return inside / runs


def test_interval_holds_the_truth():
    assert 0.88 <= share_inside() <= 0.99


def test_planted_bug_gap_kept_in_the_rate_is_noticed(monkeypatch):
    plant(monkeypatch, length._at_equal_length, "gap_free[..., : 1 + styles] = 0.0", "pass")
    with pytest.raises(AssertionError):
        check_seen_through()


def test_little_overlap_is_extrapolated():
    found = prior_fit(judged(400, slope=-0.6, level=0.0, gap=2.5, seed=1), 0)
    assert found is not None
    assert found.extrapolated


def test_equal_lengths_have_the_raw_rate_and_order_changes_nothing():
    equal = prior_fit(rows([1.0, 0.0, 1.0], [(5, 5)] * 3, list("abc")), 0)
    assert equal is not None
    assert equal.rate == pytest.approx(2 / 3)
    assert prior_fit(rows([1.0, 0.0, 1.0], [(5, 6)] * 3, list("abc")), 0) is None
    assert prior_fit(rows([1.0], [(5, 9)], ["a"]), 0) is None
    scores, lengths, names = [1.0, 0.0, 0.5, 1.0], [(5, 9), (9, 5), (7, 7), (1, 8)], list("abcd")
    turned = prior_fit(rows(scores[::-1], lengths[::-1], names[::-1]), 0)
    assert prior_fit(rows(scores, lengths, names), 0) == turned


def test_everything_won_stays_finite():
    found = prior_fit(rows([1.0] * 40, [(i, 2 * i + 1) for i in range(40)], [str(i) for i in range(40)]), 0)
    assert found is not None
    assert 0.98 < found.rate <= 1.0
    assert all(map(math.isfinite, found.coefficients))


def few_or_lopsided(kind: str) -> length.Rows:
    if kind == "all won":
        return rows([1.0] * 40, [(i, 2 * i + 1) for i in range(40)], [str(i) for i in range(40)])
    if kind == "one prompt":  # judged thirty times
        return rows([1.0, 0.0] * 15, [(i, 40 - i) for i in range(30)], ["a"] * 30)
    return rows([1.0, 0.0, 1.0, 1.0], [(3, 9), (9, 3), (7, 8), (2, 1)], list("abcd"))


def check_as_wide_as_the_raw_one() -> None:
    for kind in ("all won", "one prompt", "four prompts"):
        data = few_or_lopsided(kind)
        found = prior_fit(data, 0)
        assert found is not None
        raw = estimate(length._means(data.clusters, data.scores), 0)
        assert raw is not None
        assert (found.ci95_method, raw.method) == ("exact", "exact")
        assert found.ci95[1] - found.ci95[0] > 0.9 * (raw.ci95[1] - raw.ci95[0]), kind
        assert found.ci95[0] <= found.rate <= found.ci95[1]


def test_few_prompts_or_one_side_have_an_interval_as_wide_as_the_raw_rates():
    check_as_wide_as_the_raw_one()


def test_planted_bug_a_bootstrap_whatever_is_drawn_is_noticed(monkeypatch):
    plant(monkeypatch, length._controlled, "needs_exact(by_prompt)", "False")
    with pytest.raises(AssertionError):
        check_as_wide_as_the_raw_one()


def l1_objective(design: np.ndarray, scores: np.ndarray, c: float, theta: np.ndarray) -> float:
    eta = design @ theta
    return float(np.abs(theta).sum() + c * (np.logaddexp(0, eta) - scores * eta).sum())


def check_least(c: float) -> None:
    """No step along or between the axes makes it smaller."""
    rng = np.random.default_rng(1)
    design = np.stack([rng.normal(size=80), 0.98 * np.arange(80) / 80 + 0.01, np.ones(80)], axis=1)
    scores = rng.random(80) < 0.8
    theta = fit_l1(design, scores.astype(float), c)
    least = l1_objective(design, scores, c, theta)
    for step in np.concatenate([np.eye(3), -np.eye(3), rng.normal(size=(30, 3))]):
        for size in (1e-1, 1e-3, 1e-5):
            assert l1_objective(design, scores, c, theta + size * step) >= least - 1e-12


@pytest.mark.parametrize("c", [0.03, 0.3, 14.678, 1e4])
def test_the_l1_fit_is_the_least(c):
    check_least(c)


def test_planted_bug_a_fit_that_stops_early_is_noticed(monkeypatch):
    plant(monkeypatch, logistic.fit, "_SETTLED * scale", "1e-2 * scale")
    with pytest.raises(AssertionError):
        check_least(14.678)


def test_what_does_not_settle_says_so(monkeypatch):
    monkeypatch.setattr(logistic, "_STEPS", 2)
    with pytest.raises(MachineError, match="not settled after 2 steps"):
        prior_fit(few_or_lopsided("four prompts"), 0)
    monkeypatch.setattr(sweep, "_STEPS", 2)
    with pytest.raises(MachineError, match="not settled after 2 steps"):
        swept(-0.6)
    monkeypatch.setattr(strengths, "_STEPS", 2)
    with pytest.raises(MachineError, match="not settled after 2 steps"):
        strengths.strengths(np.array([[[0.0, 30.0], [1.0, 0.0]]]))


def test_style_is_taken_off():
    """A judge that likes headers, and a candidate that has them."""
    rng = np.random.default_rng(0)
    n = 1500
    headers = rng.choice([-0.5, 0.0], p=[0.7, 0.3], size=n)
    lengths = [(int(a), int(b)) for a, b in rng.integers(500, 1500, size=(n, 2))]
    scores = (rng.random((2, n)) < expit(-1.5 * headers)).mean(axis=0)
    plain = prior_fit(rows(list(scores), lengths, [str(i) for i in range(n)]), 0)
    styled = prior_fit(rows(list(scores), lengths, [str(i) for i in range(n)], style=[[h] for h in headers]), 0)
    assert plain is not None
    assert styled is not None
    assert plain.rate > 0.58
    assert styled.ci95[0] < 0.5 < styled.ci95[1] < plain.rate


def test_many_fits_at_once_are_the_single_fits():
    rng = np.random.default_rng(0)
    design = np.stack([rng.normal(size=60), np.ones(60)], axis=1)
    scores = rng.choice([0, 0.5, 1.0], size=60)
    weights = rng.integers(0, 3, size=(5, 60)).astype(float)
    prior = Normal((0.3, 0.0), (0.5, math.inf))
    together = fit(design[None], scores, weights, prior)
    for row, mine in zip(weights, together, strict=True):
        repeated = np.repeat(np.arange(60), row.astype(int))
        alone = fit(design[None, repeated], scores[repeated], np.ones((1, len(repeated))), prior)[0]
        assert mine == pytest.approx(alone, abs=1e-8)
    assert fit_l1(design, scores, 1e-3) == pytest.approx([0, 0], abs=1e-6)
    free = Normal((0.0, 0.0), (math.inf, math.inf))
    unpenalised = fit(design[None], scores, np.ones((1, 60)), free)[0]
    assert fit_l1(design, scores, 1e6) == pytest.approx(unpenalised, abs=1e-3)


def swept(slope: float, runs: int = 6, prompts: int = 300) -> sweep.SweepPrior:
    """Runs of one kind on the same prompts, some of which are easier to win; long answers go with easy prompts."""
    rng = np.random.default_rng(3)
    effects = rng.normal(0, 1, size=prompts)
    gaps = rng.normal(0, 300, size=(runs, prompts)) - 300 * effects + 200 * np.arange(runs)[:, None]
    x = np.tanh(gaps / gaps.std(axis=1, ddof=1, keepdims=True))
    chance = expit(slope * x + effects + np.linspace(-1, 1, runs)[:, None])
    found = estimate_prior((rng.random((2, runs, prompts)) < chance).mean(axis=0), gaps)
    assert found is not None
    return found


@pytest.mark.parametrize("slope", [-1.2, 0.0])
def test_a_sweep_tells_length_from_the_prompt(slope):
    found = swept(slope)
    assert found.slope[0] == pytest.approx(slope, abs=0.2)
    assert 0.1 <= found.slope[1] < 0.4


def test_planted_bug_effects_drawn_around_zero_is_noticed(monkeypatch):
    mean = "(known * x).sum(axis=0) / np.maximum(known.sum(axis=0), 1)"
    plant(monkeypatch, sweep._joint, mean, "np.zeros(prompts)")
    with pytest.raises(AssertionError):
        test_a_sweep_tells_length_from_the_prompt(0.0)


def test_four_runs_are_too_few():
    assert estimate_prior(np.zeros((4, 9)), np.ones((4, 9))) is None
    assert estimate_prior(np.zeros((6, 9)), np.ones((6, 9))) is None, "equal lengths say nothing"
