"""Stopping early without fooling oneself: an interval of a mean that holds at every look at once.

The hedged betting interval of Waudby-Smith & Ramdas (2024, "Estimating means of bounded random variables by betting"):
for each candidate mean m a gambler starts with 1 and bets that scores lie above m (or below); if m is the true mean, a
fair game, the fortune ever reaches 1/α with probability at most α (Ville). Means whose gambler has got that rich are
out, for good. A plain 95% interval looked at after every answer excludes the truth far more often than in 5%.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prospect.stats.intervals import Interval

Floats = NDArray[np.float64]
_GRID = 401
_MOST = 0.5  # of the stake that a bet may risk


def anytime_intervals(scores: Floats, level: float = 0.95) -> Floats:
    """[n, 2]: after each of the scores in [0, 1], in the order in which they came, the interval so far."""
    alpha = 1 - level
    means = np.linspace(0, 1, _GRID)
    bets = _bets(scores, alpha)[:, None]
    gains = scores[:, None] - means
    above = np.cumsum(np.log1p(np.minimum(bets, _MOST / np.maximum(means, 1e-12)) * gains), axis=0)
    below = np.cumsum(np.log1p(-np.minimum(bets, _MOST / np.maximum(1 - means, 1e-12)) * gains), axis=0)
    wealth = np.logaddexp(above, below) - np.log(2)
    kept = np.maximum.accumulate(wealth, axis=0) < np.log(1 / alpha)
    kept = kept[np.maximum.accumulate(np.where(kept.any(axis=1), np.arange(len(kept)), 0))]  # scores that drift put
    step = means[1]  # all means out: the last interval that held one then stays
    low = means[kept.argmax(axis=1)] - step
    high = means[_GRID - 1 - kept[:, ::-1].argmax(axis=1)] + step
    found: Floats = np.clip(np.stack([low, high], axis=1), 0.0, 1.0)
    return found


def anytime_interval(scores: Floats, level: float = 0.95) -> Interval:
    """The interval after the last score; (0, 1) without any."""
    if not len(scores):
        return 0.0, 1.0
    low, high = anytime_intervals(scores, level)[-1]
    return float(low), float(high)


def _bets(scores: Floats, alpha: float) -> Floats:
    """Predictable bets: each from what came before it only, √(2 log(2/α) / (σ² t log(1 + t))), at most a half-stake."""
    t = np.arange(1, len(scores) + 1)
    running = (0.5 + np.cumsum(scores)) / (t + 1)
    spread = (0.25 + np.concatenate([[0.0], np.cumsum((scores - running) ** 2)[:-1]])) / t
    bets: Floats = np.sqrt(2 * np.log(2 / alpha) / (np.maximum(spread, 1e-4) * t * np.log1p(t)))
    return bets
