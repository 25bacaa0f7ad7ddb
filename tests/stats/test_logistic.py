"""Fits that say when they have not settled, and an L1 fit that is a minimum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from prospect.errors import NotConvergedError
from prospect.stats import logistic
from prospect.stats.logistic import Normal, Pull, fit, fit_l1
from tests.planted import plant


def problem(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray, Pull]:
    rng = np.random.default_rng(seed)
    x = np.stack([np.tanh(rng.normal(size=n)), rng.normal(size=n), np.ones(n)], axis=1)
    y = expit(x @ np.array([-0.8, 0.6, -1.0]) + rng.normal(size=n))
    pull = Pull(x[:50] * np.array([1, 1, 0]), 0.1, np.array([-3.0, 5.0, 0.0]))
    return x, y, pull


def check_minimum(seed: int, c: float) -> None:
    """Against a solver of another kind, started in several places."""
    x, y, pull = problem(seed)

    def objective(theta: np.ndarray) -> float:
        eta, pulled = x @ theta, pull.design @ theta
        loss = np.sum(np.logaddexp(0, eta) - y * eta)
        loss += pull.weight * (np.sum(np.logaddexp(0, pulled)) - pull.sums @ theta)
        return float(np.abs(theta).sum() + c * loss)

    theta = fit_l1(x, y, c, pull)
    starts = [theta, np.zeros(3), *np.random.default_rng(seed).normal(size=(2, 3))]
    options = {"xatol": 1e-9, "fatol": 1e-12}
    best = min(minimize(objective, start, method="Nelder-Mead", options=options).fun for start in starts)
    assert objective(theta) <= best + 1e-9 * abs(best)


@pytest.mark.parametrize("c", [1e-3, 0.02, 0.3, 14.678, 1e4])
def test_l1_is_a_minimum(c):
    check_minimum(0, c)


def test_planted_bug_a_threshold_that_is_too_small_is_noticed(monkeypatch):
    plant(monkeypatch, logistic._step, "np.abs(free) - penalty", "np.abs(free) - 0.5 * penalty")
    with pytest.raises((AssertionError, NotConvergedError)):
        check_minimum(0, 0.3)


def test_all_is_zero_under_a_strong_penalty():
    x, y, pull = problem(0)
    assert (fit_l1(x, y, 1e-3, pull) == 0).all()


def test_a_fit_that_has_not_settled_is_said(monkeypatch):
    x, y, _ = problem(0)
    monkeypatch.setattr(logistic, "_STEPS", 1)
    with pytest.raises(NotConvergedError, match="has not settled after 1 steps"):
        fit(x[None], y, np.ones((1, len(y))), Normal((0.0,) * 3, (np.inf,) * 3))
