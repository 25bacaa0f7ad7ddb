"""Weights of desirable and undesirable answers, and what ``auto`` makes of them. Ethayarajh et al. 2024, section 4.1.

With n_D desirable and n_U undesirable answers KTO wants w_D·n_D / w_U·n_U within [1, 4/3].
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from prospect.config.schema import LossConfig
from prospect.errors import UserError

Weight = float | Literal["auto"]
_LOWEST, _HIGHEST = 1.0, 4 / 3


@dataclass  # without slots, so that a loss can have another base beside it
class WeightedConfig(LossConfig):
    """What losses on weighted answers have; ``auto``: from the counts of the training data."""

    desirable_weight: Weight = 1.0
    undesirable_weight: Weight = 1.0

    def is_auto(self) -> bool:
        """Whether the counts decide a weight."""
        return "auto" in (self.desirable_weight, self.undesirable_weight)


@dataclass(frozen=True, slots=True)
class Weights:
    """Numbers for both, and the counts behind them."""

    desirable_weight: float
    undesirable_weight: float
    desirable: int
    undesirable: int

    @property
    def ratio(self) -> float:
        """w_D·n_D / w_U·n_U."""
        below = self.undesirable_weight * self.undesirable
        return self.desirable_weight * self.desirable / below if below else inf

    def outside(self) -> bool:
        """Whether the ratio is not in the paper's interval; ``auto`` lands on its lower end, up to rounding."""
        return not _LOWEST - 1e-9 <= self.ratio <= _HIGHEST + 1e-9

    def line(self) -> str:
        """Both weights and their ratio, for the log."""
        return (
            f"desirable_weight {self.desirable_weight:.6g} × {self.desirable} answers, "
            f"undesirable_weight {self.undesirable_weight:.6g} × {self.undesirable} answers: ratio {self.ratio:.4g}"
        )


def settled(config: WeightedConfig, desirable: int, undesirable: int) -> Weights:
    """Numbers for both weights: an ``auto`` one makes the ratio 1; of two, the undesirable one is 1."""
    mine, other = config.desirable_weight, config.undesirable_weight
    if config.is_auto() and not (desirable and undesirable):
        raise UserError(
            f"loss.{'desirable_weight' if mine == 'auto' else 'undesirable_weight'}: auto needs answers of both kinds; "
            f"the training data have {desirable} desirable and {undesirable} undesirable ones"
        )
    if mine == "auto":
        other = 1.0 if other == "auto" else other
        mine = other * undesirable / desirable
    elif other == "auto":
        other = mine * desirable / undesirable
    return Weights(mine, other, desirable, undesirable)
