"""A table of everybody who met somebody, by Bradley–Terry strength, with places that no p value contradicts.

Elo's scale has 400 / ln 10 points to a unit of strength.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, logit

from prospect.stats.bootstrap import estimate, needs_exact
from prospect.stats.intervals import Interval, clopper_pearson, rising
from prospect.stats.met import Gap, Met, gaps, told_apart
from prospect.stats.strengths import Floats, information, strengths

ELO = 400 / math.log(10)
_DRAWS = 1_000
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Standing:
    """One of the table. ``se`` is of the strength (from the curvature). ``elo_ci95`` may be open (infinite) at an end.
    ``rank95``: from the best to the worst place of those from whom it is not told apart. ``gap``: what is known of the
    first's lead over it, None where nothing is; ``p_best``: the p of that by Holm, for as many comparisons as are known
    of the first, None where the gap points the other way than the strengths."""

    index: int
    strength: float
    se: float
    elo: float
    elo_ci95: Interval
    rank: int
    rank95: tuple[int, int]
    gap: Gap | None
    p_best: float | None


def parts(wins: Floats) -> list[list[int]]:
    """Groups that never met each other; strengths exist only within one."""
    n, labels = connected_components(wins + wins.T > 0, directed=False)
    return [np.flatnonzero(labels == i).tolist() for i in range(n)]


def standings(met: Met, anchor: int | None, seed: int) -> list[Standing]:
    """The table, best first; ``anchor`` stands at Elo 1000, or the mean does."""
    wins = met.wins
    theta = strengths(wins[None])[0]
    chance = expit(theta[:, None] - theta[None, :])
    covariance = np.linalg.pinv(information((wins + wins.T)[None], chance[None])[0])
    order = sorted(range(len(theta)), key=lambda i: (-theta[i], i))
    found = gaps(met, order, seed)
    apart = told_apart(found, theta)
    places, intervals = apart.places(order), _intervals(met, theta, anchor, seed)
    return [
        Standing(
            index=i,
            strength=float(theta[i]),
            se=float(math.sqrt(max(covariance[i, i], 0.0))),
            elo=float(1000 + ELO * (theta[i] - (0.0 if anchor is None else theta[anchor]))),
            elo_ci95=(1000 + ELO * intervals[i][0], 1000 + ELO * intervals[i][1]),
            rank=place,
            rank95=places[i],
            gap=found.get((order[0], i)),
            p_best=apart.adjusted.get((order[0], i)),
        )
        for place, i in enumerate(order, 1)
    ]


def _intervals(met: Met, theta: Floats, anchor: int | None, seed: int) -> list[Interval]:
    """95% of everybody's strength less the anchor's (or the mean).

    Where all met the anchor only, that of the win rate on another scale. Else the bootstrap's, made as wide as the
    exact interval of somebody's win rate against the others as they are, where that has too few prompts for a
    bootstrap, or hardly a win or a loss.
    """
    wins, everybody = met.wins, range(len(theta))
    if anchor is not None and not np.delete(np.delete(wins, anchor, 0), anchor, 1).any():
        return [(0.0, 0.0) if i == anchor else _of_rate(met, i, seed) for i in everybody]
    drawn = np.concatenate([strengths(some, start=theta) for some in _resampled(met, seed)])
    drawn = drawn if anchor is None else drawn - drawn[:, [anchor]]
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    exact = [_exact(met, wins, theta, i) for i in everybody]
    share = 1 - 1 / len(theta) if anchor is None else 1.0  # of a change of one's strength that the mean leaves over
    found = []
    for i in everybody:
        against = (0.0, 0.0) if anchor is None else exact[anchor]
        here = theta[i] if anchor is None else theta[i] - theta[anchor]
        ends = (here + share * exact[i][0] - against[1], here + share * exact[i][1] - against[0])
        found.append((0.0, 0.0) if i == anchor else (min(float(low[i]), ends[0]), max(float(high[i]), ends[1])))
    return found


def _of_rate(met: Met, i: int, seed: int) -> Interval:
    """The logit of the win rate's interval; open where nothing was lost, or won."""
    found = estimate(_scores(met, i), seed)
    assert found is not None
    return float(logit(found.ci95[0])), float(logit(found.ci95[1]))


def _exact(met: Met, wins: Floats, theta: Floats, i: int) -> Interval:
    """How far the strength may change for the mean score, against these others, to stay within its exact interval;
    (0, 0) where a bootstrap will do."""
    scores = _scores(met, i)
    if not needs_exact(scores):
        return 0.0, 0.0
    games = wins[i] + wins[:, i]
    rate = float(wins[i].sum() / games.sum())
    low, high = clopper_pearson(rate * len(scores), len(scores))

    def mean(change: float) -> float:
        return float(games @ expit(theta[i] + change - theta) / games.sum())

    return min(0.0, rising(mean, low)), max(0.0, rising(mean, high))


def _scores(met: Met, i: int) -> Floats:
    """Mean scores of one by prompt, and of each game that is known by counts only."""
    won, played = met.clusters[:, i].sum(axis=1), (met.clusters[:, i] + met.clusters[:, :, i]).sum(axis=1)
    known: Floats = won[played > 0] / played[played > 0]
    return np.concatenate([known, np.repeat((1.0, 0.5, 0.0), met.tallies[i].sum(axis=0))])


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
