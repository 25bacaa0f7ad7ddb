"""Bradley–Terry strengths (1952) of everybody who met somebody: P(i beats j) = σ(θ_i − θ_j), ties count half.

Maximum likelihood by Newton's method, for one matrix of wins or for many at once (a bootstrap). A ridge too weak to be
seen keeps finite who won or lost everything. Strengths have mean 0; Elo's scale has 400 / ln 10 points to a unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, logit

from prospect.errors import NotConvergedError
from prospect.stats.bootstrap import EXACT_BELOW
from prospect.stats.intervals import Interval, clopper_pearson

Floats = NDArray[np.float64]
ELO = 400 / math.log(10)
_RIDGE = 1e-5
_DRAWS = 1_000
_AT_ONCE = 100
_MOST_STEPS = 200


@dataclass(frozen=True, slots=True)
class Met:
    """What was played. ``wins`` [m, m]: row's score against column. ``clusters`` [c, m, m]: the same by prompt, for
    what is known prompt by prompt. ``counts``: (i, j, wins, ties, losses) of what is known by its counts only, where
    prompts count as independent. ``wins`` is the sum of both."""

    clusters: Floats
    counts: Sequence[tuple[int, int, int, int, int]]

    @property
    def wins(self) -> Floats:
        """All of it."""
        total: Floats = self.clusters.sum(axis=0)
        for i, j, won, tied, lost in self.counts:
            total[i, j] += won + tied / 2
            total[j, i] += lost + tied / 2
        return total


@dataclass(frozen=True, slots=True)
class Standing:
    """One of the table. ``se`` is of the strength (from the curvature), ``elo_ci95`` a bootstrap's. For fewer than 30
    prompts, or where all were won or lost, it is at least as wide as the exact interval of the win rate; an end is
    None where nothing holds it."""

    index: int
    strength: float
    se: float
    elo: float
    elo_ci95: tuple[float | None, float | None]


def parts(wins: Floats) -> list[list[int]]:
    """Groups that never met each other; strengths exist only within one."""
    n, labels = connected_components(wins + wins.T > 0, directed=False)
    return [np.flatnonzero(labels == i).tolist() for i in range(n)]


def strengths(wins: Floats) -> Floats:
    """[b, m] with mean 0, of wins [b, m, m]."""
    games = wins + np.swapaxes(wins, 1, 2)
    m = wins.shape[-1]
    steady = _RIDGE * np.eye(m) + 1 / m  # a common shift changes nothing: without the 1/m noise would decide it
    theta = np.zeros(wins.shape[:2])
    for _ in range(_MOST_STEPS):
        chance = expit(theta[:, :, None] - theta[:, None, :])
        gradient = (wins - games * chance).sum(axis=2) - _RIDGE * theta
        step = np.linalg.solve(_information(games, chance) + steady, gradient[..., None])[..., 0]
        step *= np.minimum(1.0, 2.0 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
        theta = theta + step
        if np.abs(step).max() < 1e-9:
            break
    else:
        raise NotConvergedError(f"Bradley–Terry strengths have not settled in {_MOST_STEPS} steps")
    centred: Floats = theta - theta.mean(axis=1, keepdims=True)
    return centred


def standings(met: Met, anchor: int | None, seed: int) -> list[Standing]:
    """The table, best first; ``anchor`` stands at Elo 1000, or the mean does."""
    wins = met.wins
    theta = strengths(wins[None])[0]
    drawn = np.concatenate([_nearby(some, theta, wins) for some in _resampled(met, seed)])
    chance = expit(theta[:, None] - theta[None, :])
    covariance = np.linalg.pinv(_information((wins + wins.T)[None], chance[None])[0])
    shift = np.zeros(len(drawn)) if anchor is None else drawn[:, anchor]
    low, high = np.quantile(1000 + ELO * (drawn - shift[:, None]), (0.025, 0.975), axis=0)
    order = sorted(range(len(theta)), key=lambda i: (-theta[i], i))
    base = 0.0 if anchor is None else float(theta[anchor])
    return [
        Standing(
            index=i,
            strength=float(theta[i]),
            se=float(math.sqrt(max(covariance[i, i], 0.0))),
            elo=float(1000 + ELO * (theta[i] - base)),
            elo_ci95=_wide(met, theta, i, base, (float(low[i]), float(high[i])), i == anchor),
        )
        for i in order
    ]


def _wide(
    met: Met, theta: Floats, i: int, base: float, drawn: Interval, fixed: bool
) -> tuple[float | None, float | None]:
    """A bootstrap's interval of Elo, as wide as the exact one of the win rate where resampling says too little."""
    wins = met.wins
    n, won = _prompts(met, i)
    if fixed or (n >= EXACT_BELOW and 0 < won < n):
        return drawn
    games = wins[i] + wins[:, i]
    against = float(games @ theta / games.sum())
    low, high = (1000 + ELO * (against + logit(end) - base) for end in clopper_pearson(won, n))
    ends = (min(low, drawn[0]), max(high, drawn[1]))
    return ends[0] if math.isfinite(ends[0]) else None, ends[1] if math.isfinite(ends[1]) else None


def _prompts(met: Met, i: int) -> tuple[int, float]:
    """How many prompts a candidate has met somebody on, and the sum of its mean scores."""
    won, lost = met.clusters[:, i].sum(axis=1), met.clusters[:, :, i].sum(axis=1)
    played = won + lost > 0
    n, total = int(played.sum()), float((won[played] / (won + lost)[played]).sum())
    for a, b, wins, ties, losses in met.counts:
        if i in (a, b):
            n += wins + ties + losses
            total += (wins if i == a else losses) + ties / 2
    return n, min(total, n)


def _information(games: Floats, chance: Floats) -> Floats:
    """Curvature [b, m, m] of the log-likelihood."""
    curved = games * chance * (1 - chance)
    diagonal = curved.sum(axis=2)[..., None] * np.eye(games.shape[-1])
    information: Floats = diagonal - curved
    return information


def _nearby(wins: Floats, theta: Floats, original: Floats) -> Floats:
    """Strengths [b, m] of resamples, by steps with the original's curvature: one inverse serves all of them. Where
    that does not settle (hardly any wins), Newton's method does."""
    m = len(theta)
    chance = expit(theta[:, None] - theta[None, :])
    curvature = _information((original + original.T)[None], chance[None])[0] + _RIDGE * np.eye(m) + 1 / m
    inverse = np.linalg.inv(curvature)
    games = wins + np.swapaxes(wins, 1, 2)
    found = np.tile(theta, (len(wins), 1))
    for _ in range(25):
        chance = expit(found[:, :, None] - found[:, None, :])
        step = ((wins - games * chance).sum(axis=2) - _RIDGE * found) @ inverse
        found = found + np.clip(step, -1.0, 1.0)
        unsettled = np.abs(step).max(axis=1) > 1e-5
        if not unsettled.any():
            break
    if unsettled.any():
        found[unsettled] = strengths(wins[unsettled])
    centred: Floats = found - found.mean(axis=1, keepdims=True)
    return centred


def _resampled(met: Met, seed: int) -> Iterator[Floats]:
    """Wins [some draws, m, m] of resampled prompts."""
    rng = np.random.default_rng(seed)
    n, m, _ = met.clusters.shape
    at_once = min(_DRAWS, _AT_ONCE)
    for _ in range(_DRAWS // at_once):
        wins = np.zeros((at_once, m, m))
        if n:
            times = rng.multinomial(n, np.full(n, 1 / n), size=at_once).astype(np.float64)
            wins += (times @ met.clusters.reshape(n, -1)).reshape(wins.shape)
        for i, j, won, tied, lost in met.counts:
            total = won + tied + lost
            if total:
                drawn = rng.multinomial(total, np.array([won, tied, lost]) / total, size=at_once)
                wins[:, i, j] += drawn[:, 0] + drawn[:, 1] / 2
                wins[:, j, i] += drawn[:, 2] + drawn[:, 1] / 2
        yield wins
