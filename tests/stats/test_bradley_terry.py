"""Strengths, their intervals in simulation, and Holm's adjustment. Real ones are in tests/judge/test_rank.py."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from prospect.stats import bradley_terry
from prospect.stats.bradley_terry import ELO, parts, standings
from prospect.stats.met import Met, holm
from prospect.stats.strengths import strengths
from tests.planted import plant


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(bradley_terry, "_DRAWS", 200)


def test_two_are_the_logit_of_the_win_rate():
    theta = strengths(np.array([[[0.0, 30.0], [10.0, 0.0]]]))[0]
    assert theta[0] - theta[1] == pytest.approx(logit(0.75), abs=1e-5)
    assert theta.sum() == pytest.approx(0)


def test_who_never_met():
    wins = np.zeros((4, 4))
    wins[0, 1] = wins[3, 2] = 1
    assert parts(wins) == [[0, 1], [2, 3]]
    wins[1, 2] = 1
    assert parts(wins) == [[0, 1, 2, 3]]


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def coverage(runs: int = 60) -> float:
    """Of the Elo interval of one of four, whose games on a prompt stand and fall together."""
    truth = np.array([0.5, 0.0, -0.2, -0.3])
    inside = 0
    for run in range(runs):
        rng = np.random.default_rng(run)
        clusters = np.zeros((150, 4, 4))
        for i in range(4):
            for j in range(i):
                luck = rng.random(150)  # the same for both orders
                won = np.where(luck < expit(truth[i] - truth[j]), 2.0, 0.0)
                clusters[:, i, j] += won
                clusters[:, j, i] += 2 - won
        place = next(line for line in standings(Met(clusters, []), 1, run) if line.index == 0)
        low, high = place.elo_ci95
        inside += low <= 1000 + ELO * 0.5 <= high
    return inside / runs


def test_interval_covers():
    assert 0.88 <= coverage() <= 1.0


def test_planted_bug_games_as_if_independent_is_noticed(monkeypatch):
    drawn = "rng.multinomial(n, np.full(n, 1 / n), size=at_once)"
    plant(monkeypatch, bradley_terry._resampled, drawn, drawn.replace("(n,", "(2 * n,", 1))
    assert coverage() < 0.88


def test_counts_and_prompts_give_the_same_strengths():
    clusters = np.zeros((10, 2, 2))
    clusters[:7, 0, 1] = clusters[7:, 1, 0] = 1
    for met in (Met(clusters, []), Met(np.zeros((0, 2, 2)), [(0, 1, 7, 0, 3)])):
        first, second = standings(met, 1, 0)
        assert first.strength == pytest.approx(logit(0.7) / 2, abs=1e-4)
        assert (first.rank, second.rank, second.elo) == (1, 2, 1000.0)
        assert first.rank95[0] == 1
        assert second.p_best is not None
        assert second.p_best > 0.05
