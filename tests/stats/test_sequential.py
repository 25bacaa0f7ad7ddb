"""Intervals that hold at every look: simulated, and against what one must not do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prospect.stats import sequential
from prospect.stats.sequential import anytime_interval, anytime_intervals
from tests.planted import plant


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    monkeypatch.setattr(sequential, "_GRID", 101)


def share_ever_missed(rate: float, n: int = 300, runs: int = 200) -> float:
    """How often the true mean is outside at any of n looks."""
    rng = np.random.default_rng(int(100 * rate))
    missed = 0
    for _ in range(runs):
        scores = rng.choice([0, 0.5, 1], p=[0.8 * (1 - rate), 0.2, 0.8 * rate], size=n)
        truth = 0.1 + 0.8 * rate
        found = anytime_intervals(scores)
        missed += bool(((found[:, 0] > truth) | (found[:, 1] < truth)).any())
    return missed / runs


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_truth_is_inside_at_every_look(rate):
    assert share_ever_missed(rate) <= 0.05


def test_planted_bug_bets_that_know_the_score_are_noticed(monkeypatch):
    plant(
        monkeypatch, sequential.anytime_intervals, "bets = _bets(scores, alpha)[:, None]", "bets = 4 * scores[:, None]"
    )
    assert share_ever_missed(0.5) > 0.05


def test_a_plain_interval_does_not_hold_at_every_look():
    """Why it takes more: peeking at a normal interval excludes a true ½ far too often."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 2, size=(400, 300)).astype(float)
    t = np.arange(1, 301)
    means = scores.cumsum(axis=1) / t
    half = 1.96 * np.sqrt(np.maximum(means * (1 - means), 1e-9) / t)
    assert (np.abs(means - 0.5) > half)[:, 10:].any(axis=1).mean() > 0.2


def test_a_clear_winner_is_decided_early():
    rng = np.random.default_rng(1)
    sure = [anytime_intervals((rng.random(800) < 0.7).astype(float))[:, 0] > 0.5 for _ in range(20)]
    assert all(at.any() for at in sure)
    assert np.median([at.argmax() for at in sure]) < 150
    low, high = anytime_interval(np.tile([0.0, 1.0], 200))
    assert low < 0.5 < high


def test_width_at_the_end():
    """Wider than an interval that is looked at once, but of its order."""
    rng = np.random.default_rng(2)
    low, high = anytime_interval((rng.random(800) < 0.5).astype(float))
    once = 2 * 1.96 * math.sqrt(0.25 / 800)
    assert once < high - low < 2.2 * once
    assert anytime_interval(np.array([])) == (0.0, 1.0)


def test_scores_that_drift_put_no_interval_out():
    found = anytime_intervals(np.repeat([0.0, 1.0], 300))
    assert np.isfinite(found).all()
