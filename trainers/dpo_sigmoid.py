"""DPO without the logarithm: an ablation of Ethayarajh et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prospect.config.schema import LossConfig
from trainers.paired import LogRatioTrainer


class DPOSigmoidTrainer(LogRatioTrainer):
    """The probability itself instead of its logarithm: bounded, so that hopeless pairs stop pulling."""

    paper = "Ethayarajh et al. 2024, code of the Archangel suite"
    formula = "−σ({beta} Δ)"

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta``: as in DPO."""

        beta: float = 0.1

    def at_start(self) -> dict[str, float]:
        """−1/2."""
        return {"loss": -0.5}

    def of_ratios(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """One loss a pair."""
        beta = self.config.loss.beta
        return -torch.sigmoid(beta * (chosen - rejected))
