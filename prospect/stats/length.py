"""Length-controlled win rates: what the rate would be if the two answers were equally long.

logit p = a·tanh(Δ / sd(Δ)) + b·γ + c with Δ = baseline's length − candidate's in characters (Dubois et al. 2024). The
rate is the mean of σ(b·γ + c): the same fit at Δ = 0. An intercept alone cannot tell a longer answer from a better one,
so a prior must: AlpacaEval's pull by two gamed baselines and its difficulty γ of each instruction (``alpaca_fit``), or,
on own data, a ~ N(−0.6, 0.2²) (``prior_fit``), which is within 1.0 points of AlpacaEval's figure on the mean of 56
models and 3.7 at most. Intervals are percentile bootstraps of the whole fit over prompts; where the raw rate's would be
exact (see ``bootstrap``), they are as wide as that one, carried to equal length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from prospect.stats.bootstrap import Estimate, estimate, needs_exact
from prospect.stats.intervals import Interval, clopper_pearson, rising
from prospect.stats.logistic import Floats, Normal, Pull, fit

OWN_PRIOR = (-0.6, 0.2)
EXTRAPOLATED = 0.10  # below this overlap a fit speaks of lengths that hardly occur
_MATCHED = 0.25  # in standard deviations of Δ
_DRAWS = 1_000
_AT_ONCE = 100
_POINT = 1e-6  # an interval as narrow says nothing


@dataclass(frozen=True, slots=True)
class Rows:
    """Judged pairs: scores [n], lengths of baseline and candidate [n], clusters [n] (numbers from 0), and, where they
    are known, instruction difficulties [n] and further style gaps [n, s]."""

    scores: Floats
    gaps: Floats
    clusters: NDArray[np.int64]
    difficulty: Floats | None = None
    style: Floats | None = None


@dataclass(frozen=True, slots=True)
class Controlled:
    """``overlap`` is the smaller of the shares of longer and shorter candidates; below 10% the rate is extrapolated.
    ``ci95_method`` is ``bootstrap`` or ``exact``."""

    rate: float
    ci95: Interval
    ci95_method: str
    method: str
    coefficients: tuple[float, ...]
    overlap: float
    n: int

    @property
    def extrapolated(self) -> bool:
        """Whether hardly any answer is longer, or hardly any shorter: then the raw rate is the headline."""
        return self.overlap < EXTRAPOLATED


def rows(
    scores: Sequence[float],
    lengths: Sequence[tuple[int, int]],
    clusters: Sequence[str],
    difficulty: Sequence[float] | None = None,
    style: Sequence[Sequence[float]] | None = None,
) -> Rows:
    """Arrays, in an order that does not depend on the rows'."""
    order = sorted(range(len(scores)), key=lambda i: (clusters[i], lengths[i], scores[i]))
    _, numbers = np.unique([clusters[i] for i in order], return_inverse=True)
    return Rows(
        scores=np.array([scores[i] for i in order], dtype=np.float64),
        gaps=np.array([lengths[i][0] - lengths[i][1] for i in order], dtype=np.float64),
        clusters=numbers.astype(np.int64),
        difficulty=None if difficulty is None else np.array([difficulty[i] for i in order], dtype=np.float64),
        style=None if style is None else np.array([style[i] for i in order], dtype=np.float64),
    )


def overlap(gaps: Floats) -> float:
    """The smaller of the shares of candidates that are longer and that are shorter."""
    return float(min((gaps > 0).mean(), (gaps < 0).mean()))


def alpaca_fit(data: Rows, pull: Pull, seed: int, c: float | None = None) -> Controlled | None:
    """AlpacaEval's (length_controlled_v1), by maximum likelihood, or with its L1 penalty at a given constant ``c``.

    None where all lengths differ by as much, but by something. ``coefficients`` are a, b and c of the formula.
    """
    assert data.difficulty is not None
    free = Normal((0.0,) * 3, (math.inf,) * 3)
    name, penalty = ("alpaca", 0.0) if c is None else (f"alpaca, L1 at C = {c:g}", 1 / c)
    return _controlled(data, _Model(name, free, pull, penalty=penalty), seed)


def prior_fit(data: Rows, seed: int, prior: tuple[float, float] = OWN_PRIOR) -> Controlled | None:
    """Of own data: one length coefficient with a normal prior (mean, sd). None as in ``alpaca_fit``.

    ``data.style`` adds coefficients, with weak priors N(0, 1): the rate is then that at equal length and style.
    """
    styles = 0 if data.style is None else data.style.shape[1]
    normal = Normal((prior[0], *(0.0,) * (styles + 1)), (prior[1], *(1.0,) * styles, math.inf))
    return _controlled(data, _Model("prior" if not styles else "prior, with style", normal), seed)


def effects_fit(data: Rows, seed: int, prior: tuple[float, float]) -> Controlled | None:
    """With effects of the prompts from a sweep (``data.difficulty``) as given: logit p = a·x + γ + c."""
    normal = Normal((prior[0], 0.0), (prior[1], math.inf))
    return _controlled(data, _Model("prior of the sweep, with its prompts' effects", normal, offset=True), seed)


def matched(data: Rows, seed: int) -> Estimate | None:
    """Plain win rate over the pairs whose lengths differ by at most a quarter of a standard deviation."""
    spread = _spread(data.gaps, np.ones((1, len(data.gaps))))[0]
    near = np.abs(data.gaps) <= _MATCHED * spread
    return estimate(_means(data.clusters[near], data.scores[near]), seed)


def _means(clusters: NDArray[np.int64], scores: Floats) -> Floats:
    """One a cluster, sorted."""
    found: Floats = np.sort((np.bincount(clusters, scores) / np.maximum(np.bincount(clusters), 1))[np.unique(clusters)])
    return found


@dataclass(frozen=True, slots=True)
class _Model:
    """What is fitted: see ``logistic.fit``. ``offset``: difficulties are effects as given, and get no coefficient."""

    name: str
    prior: Normal
    pull: Pull | None = None
    offset: bool = False
    penalty: float = 0.0


def _equal(data: Rows, seed: int) -> Controlled:
    """Where every answer is as long as the baseline's, the rate at equal length is the raw one."""
    raw = estimate(_means(data.clusters, data.scores), seed)
    assert raw is not None
    name = "all lengths are equal: the raw rate"
    return Controlled(raw.mean, raw.ci95, raw.method, name, (), 0.5, len(data.scores))


def _controlled(data: Rows, model: _Model, seed: int) -> Controlled | None:
    n = len(data.scores)
    if n and not data.gaps.any():
        return _equal(data, seed)
    if n < 2 or not np.ptp(data.gaps):
        return None
    whole, theta = _rates(data, np.ones((1, n)), model)
    rate, (low, high) = float(whole[0]), _bootstrap(data, model, seed, theta[0])
    by_prompt, ends = _means(data.clusters, data.scores), [(low, high)]
    exact = needs_exact(by_prompt) or high - low < _POINT  # a penalty can hold all resamples where it wants them
    if exact:
        ends += [(rate, rate), _carried(data, model, theta[0], len(by_prompt))]
    interval = min(low for low, _ in ends), max(high for _, high in ends)
    coefficients = tuple(map(float, theta[0]))
    method = "exact" if exact else "bootstrap"
    return Controlled(rate, interval, method, model.name, coefficients, overlap(data.gaps), n)


def _bootstrap(data: Rows, model: _Model, seed: int, start: Floats) -> Interval:
    rng = np.random.default_rng(seed)
    n_clusters = int(data.clusters.max()) + 1
    drawn = []
    for _ in range(_DRAWS // _AT_ONCE):
        counts = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=_AT_ONCE)
        drawn.append(_rates(data, counts[:, data.clusters].astype(np.float64), model, start)[0])
    low, high = np.quantile(np.concatenate(drawn), (0.025, 0.975))
    return float(low), float(high)


def _carried(data: Rows, model: _Model, theta: Floats, prompts: int) -> Interval:
    """The raw rate's exact interval at equal length: the intercept is moved until the fit has the raw rate's end, the
    other coefficients stay."""
    design, shift = _design(data, np.ones((1, len(data.scores))), not model.offset)[0], _shift(data, model)
    fitted, level = design @ theta + shift, _at_equal_length(data, design) @ theta + shift
    ends = clopper_pearson(float(data.scores.mean()) * prompts, prompts)
    low, high = (rising(lambda change: float(expit(fitted + change).mean()), end) for end in ends)
    return float(expit(level + low).mean()), float(expit(level + high).mean())


def _rates(data: Rows, weights: Floats, model: _Model, start: Floats | None = None) -> tuple[Floats, Floats]:
    """Controlled rates [b] and coefficients [b, k] under row weights [b, n]."""
    design, shift = _design(data, weights, not model.offset), _shift(data, model)
    theta = fit(design, data.scores, weights, model.prior, model.pull, shift, start, model.penalty)
    chance = expit(np.matmul(_at_equal_length(data, design), theta[:, :, None])[..., 0] + shift)
    return (chance * weights).sum(axis=1) / weights.sum(axis=1), theta


def _shift(data: Rows, model: _Model) -> float | Floats:
    return data.difficulty if model.offset and data.difficulty is not None else 0.0


def _at_equal_length(data: Rows, design: Floats) -> Floats:
    """The same rows without their gaps."""
    gap_free = design.copy()
    styles = 0 if data.style is None else data.style.shape[1]
    gap_free[..., : 1 + styles] = 0.0
    return gap_free


def _design(data: Rows, weights: Floats, with_difficulty: bool) -> Floats:
    """[b, n, k]: tanh of the gap in standard deviations of the (re)sample; style; difficulty; 1."""
    gap = np.tanh(data.gaps / _spread(data.gaps, weights)[:, None])
    columns = [gap]
    if data.style is not None:
        columns += [np.broadcast_to(column, gap.shape) for column in data.style.T]
    if data.difficulty is not None and with_difficulty:
        columns.append(np.broadcast_to(data.difficulty, gap.shape))
    return np.stack([*columns, np.ones_like(gap)], axis=-1)


def _spread(gaps: Floats, weights: Floats) -> Floats:
    """Standard deviation [b] (ddof 1) under weights; 1 where nothing varies."""
    total = weights.sum(axis=1)
    mean = weights @ gaps / total
    squares = np.maximum(weights @ (gaps * gaps) / total - mean * mean, 0.0)
    spread = np.sqrt(squares * total / np.maximum(total - 1, 1))
    positive: Floats = np.where(spread > 0, spread, 1.0)
    return positive
