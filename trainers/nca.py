"""Noise contrastive alignment for pairs. Chen et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch.nn.functional as F
from torch import Tensor

from prospect.config.schema import LossConfig
from trainers.paired import LogRatioTrainer


class NCATrainer(LogRatioTrainer):
    """Raises the chosen answer's own likelihood beside the margin: it does not fall as with DPO."""

    paper = "Chen et al. 2024, Noise Contrastive Alignment (arXiv 2402.05369)"
    formula = "−log σ({beta} h_w) − ½ log σ(−{beta} h_w) − ½ log σ(−{beta} h_l)"

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
        noise = F.logsigmoid(-beta * chosen) + F.logsigmoid(-beta * rejected)
        return -F.logsigmoid(beta * chosen) - noise / 2
