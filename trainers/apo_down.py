"""Anchored preference optimization, down: D'Oosterlinck et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prospect.batch import Role
from prospect.config.schema import LossConfig
from trainers.paired import LogRatioTrainer


class APODownTrainer(LogRatioTrainer):
    """Both answers go down, the rejected one further: for models better than the chosen answers."""

    paper = "D'Oosterlinck et al. 2024, Anchored Preference Optimization, eq. 8 (arXiv 2408.06266)"
    formula = "σ({beta} h_w) + 1 − σ({beta} Δ)"
    flat_at_start = frozenset({Role.chosen})  # its own gradient cancels there

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
        return torch.sigmoid(beta * chosen) + 1 - torch.sigmoid(beta * (chosen - rejected))
