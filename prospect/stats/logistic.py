"""Logistic regression of scores in [0, 1], many weighted fits at once (a bootstrap of the whole fit).

Maximises Σ w·(y·η − log(1 + e^η)) − ½·Σ precision·(θ − mean)² − penalty·Σ|θ|, η = X·θ + offset, by Newton's method. A
score between 0 and 1 is a row won in part (soft labels). A fit is done when its slopes vanish, not when its steps are
small: these are small, too, where a method is stuck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from prospect.errors import NotConvergedError

Floats = NDArray[np.float64]
_WEAK = 1e-6  # precision that keeps a coefficient finite where every row is won
_STEPS, _SWEEPS = 100, 1_000
_FAR = 3.0  # the longest step
_SETTLED = 1e-12  # of the slope that the rows would have if all of them pulled the same way


@dataclass(frozen=True, slots=True)
class Normal:
    """Independent normal priors of the coefficients; an infinite ``sd`` is none."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pull:
    """Further rows whose labels are known by sums only: their design [g, k], their weight, and Σ y·x of them [k]."""

    design: Floats
    weight: float
    sums: Floats


def fit(
    design: Floats,
    scores: Floats,
    weights: Floats,
    prior: Normal,
    pull: Pull | None = None,
    offset: float | Floats = 0.0,
    start: Floats | None = None,
    penalty: float = 0.0,
) -> Floats:
    """Coefficients [b, k]: designs [b, n, k] (or [1, n, k]), scores [n], weights [b, n]; ``start`` [k] is a guess, and
    ``penalty`` times Σ|θ| is taken off what is maximised.

    Raises:
        NotConvergedError: the slopes do not vanish.
    """
    loss = _Loss(design, scores, weights, prior, pull, offset)
    guess = np.where(np.isfinite(prior.sd), np.array(prior.mean), 0.0) if start is None else start
    theta: Floats = np.tile(guess, (len(weights), 1))
    for _ in range(_STEPS):
        gradient, hessian, scale = loss.at(theta)
        if (_left(gradient, theta, penalty) <= _SETTLED * scale).all():
            return theta
        step = _step(gradient, hessian, theta, penalty)
        theta = theta + step * np.minimum(1.0, _FAR / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
    raise NotConvergedError(f"length control: a logistic regression has not settled after {_STEPS} steps")


def fit_l1(design: Floats, scores: Floats, c: float, pull: Pull | None = None) -> Floats:
    """Coefficients [k] that minimise Σ|θ| + c·loss, as liblinear's L1 logistic regression without intercept does."""
    free = Normal((0.0,) * design.shape[1], (math.inf,) * design.shape[1])
    theta: Floats = fit(design[None], scores, np.ones((1, len(scores))), free, pull, penalty=1 / c)[0]
    return theta


@dataclass(frozen=True, slots=True)
class _Loss:
    """What is minimised, without the penalty."""

    design: Floats
    scores: Floats
    weights: Floats
    prior: Normal
    pull: Pull | None
    offset: float | Floats

    def at(self, theta: Floats) -> tuple[Floats, Floats, Floats]:
        """Gradient [b, k], curvature [b, k, k], and scale [b, k]: the gradient if nothing cancelled in it."""
        design, pull, precision = self.design, self.pull, _precision(self.prior)
        chance = expit(np.matmul(design, theta[:, :, None])[..., 0] + self.offset)
        residual, drawn = (self.weights * (chance - self.scores))[:, None, :], theta - np.array(self.prior.mean)
        gradient = np.matmul(residual, design)[:, 0] + precision * drawn
        scale = np.matmul(self.weights[:, None, :], np.abs(design))[:, 0] + precision * np.abs(drawn)
        curved = design * (self.weights * chance * (1 - chance))[..., None]
        hessian = np.matmul(np.swapaxes(curved, 1, 2), design) + np.diag(precision)
        if pull is not None:
            pulled = expit(theta @ pull.design.T)
            products = np.einsum("gj,gk->gjk", pull.design, pull.design).reshape(len(pull.design), -1)
            gradient += pull.weight * (pulled @ pull.design - pull.sums)
            scale += pull.weight * np.abs(pull.design).sum(axis=0)
            hessian += pull.weight * (pulled * (1 - pulled) @ products).reshape(hessian.shape)
        return gradient, hessian, scale


def _left(gradient: Floats, theta: Floats, penalty: float) -> Floats:
    """How far each coefficient is from where it should be: with a penalty, the slope is ∓penalty beside 0, and no
    steeper at 0 (Karush, Kuhn & Tucker)."""
    beside = np.abs(gradient + penalty * np.sign(theta))
    at_zero = np.maximum(np.abs(gradient) - penalty, 0.0)
    left: Floats = np.where(theta == 0, at_zero, beside)
    return left


def _step(gradient: Floats, hessian: Floats, theta: Floats, penalty: float) -> Floats:
    """To the minimum of the loss's parabola and the penalty: coordinate by coordinate, each with its soft threshold."""
    if not penalty:
        return np.asarray(np.linalg.solve(hessian, -gradient[..., None])[..., 0], dtype=np.float64)
    found: Floats = theta.copy()
    for _ in range(_SWEEPS):
        before = found.copy()
        for j in range(theta.shape[1]):
            curve = hessian[:, j, j]
            free = curve * found[:, j] - gradient[:, j] - (hessian[:, j] * (found - theta)).sum(axis=1)
            found[:, j] = np.sign(free) * np.maximum(np.abs(free) - penalty, 0.0) / curve
        if (np.abs(found - before) <= 1e-15 * (1 + np.abs(found))).all():
            break
    return found - theta


def errors(design: Floats, theta: Floats, prior: Normal, offset: float | Floats = 0.0) -> Floats:
    """Standard errors [k] of one fit (design [n, k]), from its curvature."""
    chance = expit(design @ theta + offset)
    hessian = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(_precision(prior))
    spread: Floats = np.sqrt(np.diag(np.linalg.inv(hessian)))
    return spread


def _precision(prior: Normal) -> Floats:
    return np.array([max(_WEAK, 1 / (sd * sd)) for sd in prior.sd])
