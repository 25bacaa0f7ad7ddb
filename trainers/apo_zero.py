"""Anchored preference optimization, zero: D'Oosterlinck et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prospect.config.schema import LossConfig
from trainers.paired import LogRatioTrainer


class APOZeroTrainer(LogRatioTrainer):
    """Chosen answers go up and rejected ones down, each by itself: for chosen answers better than the model's own."""

    paper = "D'Oosterlinck et al. 2024, Anchored Preference Optimization, eq. 7 (arXiv 2408.06266)"
    formula = "1 − σ({beta} h_w) + σ({beta} h_l)"

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
        return 1 - torch.sigmoid(beta * chosen) + torch.sigmoid(beta * rejected)
