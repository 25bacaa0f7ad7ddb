"""Binary classifier optimization on pairs, without a shift. Jung et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch.nn.functional as F
from torch import Tensor

from prospect.config.schema import LossConfig
from trainers.paired import LogRatioTrainer


class BCOPairTrainer(LogRatioTrainer):
    """Two binary classifications a pair, with the log-ratio as the logit."""

    paper = "Jung et al. 2024, Binary Classifier Optimization (arXiv 2404.04656)"
    formula = "−log σ({beta} h_w) − log σ(−{beta} h_l)"

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta``: as in DPO."""

        beta: float = 0.1

    def at_start(self) -> dict[str, float]:
        """2 ln 2."""
        return {"loss": 2 * log(2)}

    def of_ratios(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """One loss a pair."""
        beta = self.config.loss.beta
        return -F.logsigmoid(beta * chosen) - F.logsigmoid(-beta * rejected)
