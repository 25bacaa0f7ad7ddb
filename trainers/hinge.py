"""The hinge loss on DPO's margin. Liu et al. 2023 (RSO), after Zhao et al. 2023 (SLiC)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from prospect.config.schema import LossConfig
from trainers.paired import LogRatioTrainer


class HingeTrainer(LogRatioTrainer):
    """A pair whose margin has reached 1 is left alone."""

    paper = "Liu et al. 2023, Statistical Rejection Sampling (arXiv 2309.06657)"
    formula = "max(0, 1 − {beta} Δ)"

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta``: as in DPO."""

        beta: float = 0.1

    def at_start(self) -> dict[str, float]:
        """1."""
        return {"loss": 1.0}

    def of_ratios(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """One loss a pair."""
        beta = self.config.loss.beta
        return F.relu(1 - beta * (chosen - rejected))
