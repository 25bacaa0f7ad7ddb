"""How far two raters agree: accuracy, Cohen's kappa (1960), Gwet's AC1 (2008), with bootstrap intervals.

Everything is a function of the confusion matrix [k, k] (row: first rater, column: second), or of many at once
[b, k, k]: a bootstrap over prompts is one product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prospect.stats.bootstrap import needs_exact
from prospect.stats.intervals import Interval, clopper_pearson

Floats = NDArray[np.float64]
_DRAWS = 2_000


@dataclass(frozen=True, slots=True)
class Agreement:
    """Figures of ``n`` items that both raters have labelled; None where a figure is not defined."""

    n: int
    accuracy: float | None
    kappa: float | None
    ac1: float | None
    accuracy_ci95: Interval | None
    kappa_ci95: Interval | None
    ac1_ci95: Interval | None
    confusion: tuple[tuple[int, ...], ...]


def accuracy(confusion: Floats) -> Floats:
    """Share on the diagonal."""
    with np.errstate(invalid="ignore"):
        shares: Floats = np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))
    return shares


def kappa(confusion: Floats) -> Floats:
    """Agreement beyond that of raters who keep their shares but draw at random; NaN where that is total."""
    return _beyond(confusion, _kept_shares)


def ac1(confusion: Floats) -> Floats:
    """Like kappa, with a chance that does not rise when one label is rare."""
    return _beyond(confusion, _rare_allowed)


def _no_chance(confusion: Floats) -> Floats:
    return np.zeros(confusion.shape[:-2])


def _kept_shares(confusion: Floats) -> Floats:
    products: Floats = (confusion.sum(axis=-1) * confusion.sum(axis=-2)).sum(axis=-1)
    chance: Floats = products / confusion.sum(axis=(-2, -1)) ** 2
    return chance


def _rare_allowed(confusion: Floats) -> Floats:
    share = (confusion.sum(axis=-1) + confusion.sum(axis=-2)) / (2 * confusion.sum(axis=(-2, -1))[..., None])
    chance: Floats = (share * (1 - share)).sum(axis=-1) / (confusion.shape[-1] - 1)
    return chance


def _beyond(confusion: Floats, chance: Callable[[Floats], Floats]) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = chance(confusion)
        beyond: Floats = (accuracy(confusion) - expected) / (1 - expected)
    return beyond


def agree(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    labels: Sequence[Hashable],
    clusters: Sequence[Hashable],
    seed: int,
) -> Agreement:
    """Agreement on items that both have labelled; items that share a cluster are resampled together."""
    place = {label: i for i, label in enumerate(labels)}
    k, names = len(labels), {name: i for i, name in enumerate(sorted(set(clusters), key=repr))}
    cells = np.zeros((len(names), k, k))
    for a, b, cluster in zip(first, second, clusters, strict=True):
        cells[names[cluster], place[a], place[b]] += 1
    confusion = cells.sum(axis=0)
    if not names:
        return Agreement(0, None, None, None, None, None, None, _counts(confusion))
    distinct, counts = np.unique(cells.reshape(len(names), -1), axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), counts / len(names), size=_DRAWS) @ distinct
    resamples = drawn.reshape(-1, k, k)
    exact = None
    if needs_exact(accuracy(cells)):
        exact = clopper_pearson(float(accuracy(confusion)) * len(names), len(names))
    return Agreement(
        n=len(first),
        accuracy=_number(accuracy(confusion)),
        kappa=_number(kappa(confusion)),
        ac1=_number(ac1(confusion)),
        accuracy_ci95=_interval(_no_chance, confusion, resamples, exact),
        kappa_ci95=_interval(_kept_shares, confusion, resamples, exact),
        ac1_ci95=_interval(_rare_allowed, confusion, resamples, exact),
        confusion=_counts(confusion),
    )


def _counts(confusion: Floats) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(cell) for cell in row) for row in confusion)


def _number(value: Floats) -> float | None:
    return float(value) if np.isfinite(value) else None


def _interval(
    chance: Callable[[Floats], Floats], confusion: Floats, resamples: Floats, exact: Interval | None
) -> Interval | None:
    """The bootstrap's; where that is too narrow, at least as wide as the accuracy's exact one, at the chance that was
    seen."""
    values, expected = _beyond(resamples, chance), float(chance(confusion))
    values = values[np.isfinite(values)]
    if not len(values) or expected == 1:
        return None
    low, high = map(float, np.quantile(values, (0.025, 0.975)))
    if exact is None:
        return low, high
    ends = [(end - expected) / (1 - expected) for end in exact]
    return max(-1.0, min(low, ends[0])), max(high, ends[1])
