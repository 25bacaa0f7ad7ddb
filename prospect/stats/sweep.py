"""Length control from a sweep: many candidates on the same prompts show what length does, apart from the prompt.

logit p_ri = a·x_ri + γ_i + c_r, x = tanh(Δ / sd(Δ)) per run r, γ_i ~ N(0, 1) the effect of prompt i. Within one run a
prompt that wants long answers cannot be told from a judge that likes them; between runs that answer the same prompt at
different lengths it can. The slope and its spread between runs then replace the prior N(−0.6, 0.2²).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from prospect.errors import NotConvergedError
from prospect.stats.logistic import Floats, Normal, errors, fit

LEAST_RUNS = 5
_LEAST_SPREAD = 0.1
_SETTLED = 1e-5  # slope of the objective, for each judged pair


@dataclass(frozen=True, slots=True)
class SweepPrior:
    """The prior (mean, sd) of a run's length coefficient, and the effects γ of the prompts, all of them."""

    slope: tuple[float, float]
    effects: Floats


def estimate_prior(scores: Floats, gaps: Floats) -> SweepPrior | None:
    """From scores and length gaps [runs, prompts] (NaN: not judged); None for fewer than 5 runs.

    The mean is the joint fit's; the spread between runs is what the runs' own slopes, at these γ, vary beyond their
    errors (DerSimonian & Laird 1986), at least 0.1.
    """
    known = np.isfinite(scores) & np.isfinite(gaps)
    if len(scores) < LEAST_RUNS:
        return None
    spread = np.array(
        [np.std(row[mask], ddof=1) if mask.sum() > 1 else 0.0 for row, mask in zip(gaps, known, strict=True)]
    )
    x = np.where(known, np.tanh(np.nan_to_num(gaps) / np.where(spread > 0, spread, 1.0)[:, None]), 0.0)
    slope, effects = _joint(np.where(known, scores, 0.0), x, known.astype(np.float64))
    found = [
        _own_slope(scores[r, mask], x[r, mask], effects[mask])
        for r, mask in enumerate(known)
        if mask.sum() > 2 and spread[r] > 0
    ]
    if len(found) < LEAST_RUNS:
        return None
    return SweepPrior((slope, max(_LEAST_SPREAD, _between(found))), effects)


def _joint(scores: Floats, x: Floats, known: Floats) -> tuple[float, Floats]:
    """The common slope and the prompts' effects, by maximum posterior.

    The effects are drawn around a multiple of the prompt's mean x (Mundlak 1978): drawn around 0 alone they would be
    held back, and the slope would take over what prompts that make answers long have in common.
    """
    runs, prompts = scores.shape
    mean = (known * x).sum(axis=0) / np.maximum(known.sum(axis=0), 1)

    def objective(values: Floats) -> tuple[float, Floats]:
        slope, tilt, effects, levels = values[0], values[1], values[2 : 2 + prompts], values[2 + prompts :]
        eta = slope * x + tilt * mean + effects + levels[:, None]
        loss = float((known * (np.logaddexp(0, eta) - scores * eta)).sum()) + float(effects @ effects) / 2
        residual = known * (expit(eta) - scores)
        by_prompt = residual.sum(axis=0)
        slopes = [float((residual * x).sum()), float(by_prompt @ mean)]
        gradient = np.concatenate((slopes, by_prompt + effects, residual.sum(axis=1) + 1e-6 * levels))
        return loss + 5e-7 * float(levels @ levels), gradient

    found = minimize(objective, np.zeros(2 + prompts + runs), jac=True, method="L-BFGS-B", options={"maxiter": 5000})
    slope = float(np.abs(objective(found.x)[1]).max())
    if slope > _SETTLED * known.sum():
        raise NotConvergedError(f"the sweep's length fit has not settled: its steepest slope is {slope:.2g}")
    return float(found.x[0]), found.x[1] * mean + found.x[2 : 2 + prompts]


def _own_slope(scores: Floats, x: Floats, effects: Floats) -> tuple[float, float]:
    """A run's slope at given effects, and its error."""
    design = np.stack([x, np.ones_like(x)], axis=1)
    free = Normal((0.0, 0.0), (2.0, math.inf))
    theta = fit(design[None], scores, np.ones((1, len(scores))), free, offset=effects)[0]
    return float(theta[0]), float(errors(design, theta, free, effects)[0])


def _between(found: Sequence[tuple[float, float]]) -> float:
    slopes, weights = np.array([slope for slope, _ in found]), np.array([1 / error**2 for _, error in found])
    mean = (weights @ slopes) / weights.sum()
    excess = float(weights @ (slopes - mean) ** 2) - (len(found) - 1)
    return math.sqrt(max(0.0, excess / float(weights.sum() - weights @ weights / weights.sum())))
