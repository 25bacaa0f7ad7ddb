"""Bradley–Terry strengths (1952): P(i beats j) = σ(θ_i − θ_j), ties count half.

Maximum likelihood by Newton's method, for one matrix of wins or for many at once (a bootstrap). A ridge too weak to be
seen keeps finite who won or lost everything. Strengths have mean 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from prospect.errors import NotConvergedError

Floats = NDArray[np.float64]
_RIDGE = 1e-5
_STEPS = 100
_SETTLED = 1e-10  # of the games: how far expected and actual scores may differ


def strengths(wins: Floats, start: Floats | None = None) -> Floats:
    """[b, m] with mean 0, of wins [b, m, m]; ``start`` [m] is a guess.

    Raises:
        NotConvergedError: the steps do not settle.
    """
    games = wins + np.swapaxes(wins, 1, 2)
    m = wins.shape[-1]
    steady = _RIDGE * np.eye(m) + 1 / m  # a common shift changes nothing: without the 1/m noise would decide it
    theta = np.zeros(wins.shape[:2]) if start is None else np.tile(start, (len(wins), 1))
    for _ in range(_STEPS):
        chance = expit(theta[:, :, None] - theta[:, None, :])
        gradient = (wins - games * chance).sum(axis=2) - _RIDGE * theta
        if (np.abs(gradient) <= _SETTLED * (1 + games.sum(axis=2))).all():
            centred: Floats = theta - theta.mean(axis=1, keepdims=True)
            return centred
        step = np.linalg.solve(information(games, chance) + steady, gradient[..., None])[..., 0]
        theta = theta + step * np.minimum(1.0, 2.0 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
    raise NotConvergedError(f"Bradley–Terry strengths have not settled after {_STEPS} steps")


def information(games: Floats, chance: Floats) -> Floats:
    """Curvature [b, m, m] of the log-likelihood."""
    curved = games * chance * (1 - chance)
    diagonal = curved.sum(axis=2)[..., None] * np.eye(games.shape[-1])
    information: Floats = diagonal - curved
    return information
