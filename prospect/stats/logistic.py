"""Logistic regression of scores in [0, 1], many weighted fits at once (a bootstrap of the whole fit).

Maximises Σ w·(y·η − log(1 + e^η)) − ½·Σ precision·(θ − mean)², η = X·θ + offset, by Newton's method. A score between 0
and 1 is a row won in part (soft labels).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from prospect.errors import NotConvergedError

Floats = NDArray[np.float64]
_MOST_STEPS = 200
_L1_TOLERANCE = 1e-8  # of slopes, beside a penalty whose slope is 1
_WEAK = 1e-6  # precision that keeps a coefficient finite where every row is won


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
    tolerance: float = 1e-10,
) -> Floats:
    """Coefficients [b, k]: designs [b, n, k] (or [1, n, k]), scores [n], weights [b, n]; ``start`` [k] is a guess.

    Raises:
        NotConvergedError: a step is still longer than ``tolerance`` after many.
    """
    mean = np.array(prior.mean)
    precision = np.array([max(_WEAK, 1 / (sd * sd)) for sd in prior.sd])
    guess = np.where(np.isfinite(prior.sd), mean, 0.0) if start is None else start
    theta = np.tile(guess, (len(weights), 1))
    products = None if pull is None else np.einsum("gj,gk->gjk", pull.design, pull.design).reshape(len(pull.design), -1)
    for _ in range(_MOST_STEPS):
        chance = expit(np.matmul(design, theta[:, :, None])[..., 0] + offset)
        gradient = np.matmul((weights * (scores - chance))[:, None, :], design)[:, 0] - precision * (theta - mean)
        curved = design * (weights * chance * (1 - chance))[..., None]
        hessian = np.matmul(np.swapaxes(curved, 1, 2), design) + np.diag(precision)
        if pull is not None and products is not None:
            pulled = expit(theta @ pull.design.T)
            gradient += pull.weight * (pull.sums - pulled @ pull.design)
            hessian += pull.weight * (pulled * (1 - pulled) @ products).reshape(hessian.shape)
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        step *= np.minimum(1.0, 3.0 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
        theta = theta + step
        if np.abs(step).max() < tolerance:
            return theta
    raise NotConvergedError(f"the logistic fit has not settled in {_MOST_STEPS} steps")


def errors(design: Floats, theta: Floats, prior: Normal, offset: float | Floats = 0.0) -> Floats:
    """Standard errors [k] of one fit (design [n, k]), from its curvature."""
    chance = expit(design @ theta + offset)
    precision = np.array([max(_WEAK, 1 / (sd * sd)) for sd in prior.sd])
    hessian = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(precision)
    spread: Floats = np.sqrt(np.diag(np.linalg.inv(hessian)))
    return spread


def fit_l1(design: Floats, scores: Floats, c: float, pull: Pull | None = None) -> Floats:
    """Coefficients [k] that minimise Σ|θ| + c·loss, as liblinear's L1 logistic regression without intercept does.

    Proximal Newton (Lee, Sun & Saunders 2014): each step minimises the loss's quadratic model plus Σ|θ| by coordinate
    descent, and is shortened until the objective falls.

    Raises:
        NotConvergedError: the result does not fulfil the conditions of a minimum.
    """
    theta = np.zeros(design.shape[1])
    for _ in range(_MOST_STEPS):
        loss, gradient, hessian = _l1_parts(design, scores, c, pull, theta)
        if l1_violation(theta, gradient) < _L1_TOLERANCE:
            return theta
        step = _l1_step(theta, gradient, hessian)
        value = loss + np.abs(theta).sum()
        promised = gradient @ step + np.abs(theta + step).sum() - np.abs(theta).sum()
        length = 1.0
        while length > 1e-12:
            trial = theta + length * step
            reached = _l1_parts(design, scores, c, pull, trial)[0] + np.abs(trial).sum()
            if reached <= value + 0.01 * length * promised + 1e-12 * abs(value):
                break
            length /= 2
        theta = theta + length * step
    raise NotConvergedError(f"the L1 fit at C = {c:g} has not settled in {_MOST_STEPS} steps")


def l1_violation(theta: Floats, gradient: Floats) -> float:
    """How far coefficients are from a minimum of Σ|θ| + loss: where θ is 0 the slope of the loss may be up to 1 either
    way, elsewhere it must be −sign(θ)."""
    at_zero = np.maximum(np.abs(gradient) - 1, 0.0)
    return float(np.where(theta == 0, at_zero, np.abs(gradient + np.sign(theta))).max(initial=0.0))


def _l1_parts(
    design: Floats, scores: Floats, c: float, pull: Pull | None, theta: Floats
) -> tuple[float, Floats, Floats]:
    """The loss times c, its slopes [k] and its curvature [k, k]."""
    eta = design @ theta
    chance = expit(eta)
    loss = float(np.sum(np.logaddexp(0, eta) - scores * eta))
    gradient = design.T @ (chance - scores)
    hessian = (design * (chance * (1 - chance))[:, None]).T @ design
    if pull is not None:
        pulled = pull.design @ theta
        chance = expit(pulled)
        loss += pull.weight * float(np.sum(np.logaddexp(0, pulled)) - pull.sums @ theta)
        gradient = gradient + pull.weight * (pull.design.T @ chance - pull.sums)
        hessian = hessian + pull.weight * (pull.design * (chance * (1 - chance))[:, None]).T @ pull.design
    return c * loss, c * gradient, c * hessian


def _l1_step(theta: Floats, gradient: Floats, hessian: Floats) -> Floats:
    """The step that minimises gradient·d + ½·d·H·d + Σ|θ + d|."""
    step = np.zeros_like(theta)
    curvature = np.maximum(np.diag(hessian), 1e-12)
    for _ in range(1_000):
        before = step.copy()
        for j in range(len(theta)):
            slope = gradient[j] + hessian[j] @ step
            at = theta[j] + step[j] - slope / curvature[j]
            step[j] = math.copysign(max(abs(at) - 1 / curvature[j], 0.0), at) - theta[j]
        if np.abs(step - before).max() <= 1e-14 * (1 + np.abs(step).max()):
            break
    return step
