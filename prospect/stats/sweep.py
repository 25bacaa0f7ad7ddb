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
from scipy.special import expit

from prospect.errors import NotConvergedError
from prospect.stats.logistic import Floats, Normal, errors, fit

LEAST_RUNS = 5
_LEAST_SPREAD = 0.1
_STEPS, _FAR = 100, 3.0
_SETTLED = 1e-12  # of all rows
_WEAK = 1e-6  # precision of what all rows share


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
    """The common slope and the prompts' effects, by maximum posterior (Newton's method, the effects eliminated).

    The effects are drawn around a multiple of the prompt's mean x (Mundlak 1978): drawn around 0 alone they would be
    held back, and the slope would take over what prompts that make answers long have in common.

    Raises:
        NotConvergedError: the slopes do not vanish.
    """
    runs, prompts = scores.shape
    mean = (known * x).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    levels = np.broadcast_to(np.eye(runs)[:, None], (runs, prompts, runs))
    design = np.concatenate([np.stack([x, np.broadcast_to(mean, x.shape)], axis=2), levels], axis=2)
    common, effects = np.zeros(2 + runs), np.zeros(prompts)
    for _ in range(_STEPS):
        chance = expit(design @ common + effects)
        residual, curve = known * (chance - scores), known * chance * (1 - chance)
        slopes = np.einsum("rp,rpk->k", residual, design) + _WEAK * common, residual.sum(axis=0) + effects
        if max(np.abs(slopes[0]).max(), np.abs(slopes[1]).max()) <= _SETTLED * known.sum():
            return float(common[0]), common[1] * mean + effects
        curved = design * curve[..., None]
        between, alone = curved.sum(axis=0), curve.sum(axis=0) + 1  # [p, k], [p]: the effects meet only the others
        hessian = np.einsum("rpk,rpl->kl", curved, design) + _WEAK * np.eye(len(common))
        reduced = hessian - between.T @ (between / alone[:, None])
        step = np.linalg.solve(reduced, between.T @ (slopes[1] / alone) - slopes[0])
        effect_step = -(slopes[1] + between @ step) / alone
        short = min(1.0, _FAR / max(np.abs(step).max(), np.abs(effect_step).max(), 1e-300))
        common, effects = common + short * step, effects + short * effect_step
    raise NotConvergedError(f"--lc sweep: the fit of all runs has not settled after {_STEPS} steps")


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
