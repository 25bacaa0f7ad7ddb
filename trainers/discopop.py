"""DiscoPOP: the loss that a language model discovered. Lu et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

from prospect.config.schema import LossConfig
from trainers.paired import LogRatioTrainer


class DiscoPOPTrainer(LogRatioTrainer):
    """The log-ratio modulated loss: logistic where the margin is negative, exponential where it is positive.

    It is not convex: between the two, around a margin of 0, it rises (with τ = 0.05 at a slope of 0.78).
    """

    paper = "Lu et al. 2024, Discovering Preference Optimization Algorithms, eq. 5 (arXiv 2406.08414)"
    formula = "−(1−m) log σ({beta} Δ) + m exp(−{beta} Δ), m = σ({beta} Δ/{tau})"

    rises_at_start = True

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta``: as in DPO; ``tau``: τ, the temperature at which the loss goes from logistic to exponential."""

        beta: float = 0.1
        tau: float = 0.05

    def at_start(self) -> dict[str, float]:
        """(1 + ln 2)/2."""
        return {"loss": (1 + log(2)) / 2}

    def of_ratios(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """One loss a pair."""
        c = self.config.loss
        margin = c.beta * (chosen - rejected)
        logistic = -torch.sigmoid(-margin / c.tau) * F.logsigmoid(margin)
        # e^(−u) σ(u/τ) in one exponent: alone, e^(−u) overflows where σ(u/τ) vanishes
        return logistic + torch.exp(F.logsigmoid(margin / c.tau) - margin)
