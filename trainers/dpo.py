"""Direct preference optimization. Rafailov et al. 2023, eq. 7; other divergences: Wang et al. 2023 (f-DPO), eq. 12."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

from prospect.batch import Logps
from prospect.errors import UserError
from trainers.humanline import HumanlineConfig, humanline
from trainers.paired import LogRatioTrainer

_LARGEST = 80.0  # exponent at which a ratio is cut off, far below overflow


class Divergence(StrEnum):
    """What keeps the policy near the reference model."""

    reverse_kl = "reverse_kl"
    forward_kl = "forward_kl"
    js = "js"
    alpha = "alpha"


class DPOTrainer(LogRatioTrainer):
    """The margin of log-ratios under a logistic loss; g(h) = h for the reverse KL, f'(e^h) for another divergence f."""

    paper = "Rafailov et al. 2023, eq. 7 (arXiv 2305.18290)"
    formula = "−log σ({beta} [g(h_w) − g(h_l)]), g(h) = h for divergence=reverse_kl"

    @dataclass(slots=True)
    class Config(HumanlineConfig):
        """``beta``: the lower, the further the policy may leave the reference model; ``alpha``: of its divergence."""

        beta: float = 0.1
        divergence: Divergence = Divergence.reverse_kl
        alpha: float = 0.5

        def __post_init__(self) -> None:
            if self.alpha <= 0:
                raise UserError("loss.alpha: must be above 0; its limit at 0 is loss.divergence=reverse_kl")

    def at_start(self) -> dict[str, float]:
        """ln 2."""
        return {"loss": log(2)}

    def log_ratio(self, policy: Logps, reference: Logps) -> Tensor:
        """With humanline, of clamped tokens."""
        return humanline(policy, reference, self.config.loss).sums - reference.sums

    def of_ratios(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """One loss a pair."""
        c = self.config.loss
        slope = _SLOPES[c.divergence]
        return -F.logsigmoid(c.beta * (slope(chosen, c.alpha) - slope(rejected, c.alpha)))


def _exp(x: Tensor) -> Tensor:
    return torch.exp(x.clamp(max=_LARGEST))


# f'(u) at u = e^h, up to a constant that the margin cancels; f-DPO, table 1
_SLOPES: dict[Divergence, Callable[[Tensor, float], Tensor]] = {
    Divergence.reverse_kl: lambda h, alpha: h,
    Divergence.forward_kl: lambda h, alpha: -_exp(-h),
    Divergence.js: lambda h, alpha: F.logsigmoid(h),  # log(2u/(1+u)) − log 2
    Divergence.alpha: lambda h, alpha: -_exp(-alpha * h) / alpha,  # (1 − u^−α)/α
}
