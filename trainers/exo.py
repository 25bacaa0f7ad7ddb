"""Efficient exact optimization: reverse KL to the preference distribution. Ji et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch.nn.functional as F
from torch import Tensor

from prospect.config.schema import LossConfig
from prospect.errors import UserError
from trainers.paired import LogRatioTrainer


class EXOTrainer(LogRatioTrainer):
    """KL from the policy's preference q = σ(βΔ) to the label's (1−ε, ε)."""

    paper = "Ji et al. 2024, Towards Efficient Exact Optimization, eq. 16 (arXiv 2402.00856)"
    formula = "q [log q − log(1 − {label_smoothing})] + (1−q) [log(1−q) − log {label_smoothing}], q = σ({beta} Δ)"

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta``: as in DPO; ``label_smoothing``: ε > 0, the probability that a pair is in the wrong order."""

        beta: float = 0.1
        label_smoothing: float = 0.001

        def __post_init__(self) -> None:
            if self.label_smoothing <= 0:
                raise UserError("loss.label_smoothing: log ε is in EXO's formula; it must be above 0 (0.001)")

    def at_start(self) -> dict[str, float]:
        """−ln 2 − ½ log ε(1−ε)."""
        e = self.config.loss.label_smoothing
        return {"loss": -log(2) - log(e * (1 - e)) / 2}

    def of_ratios(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """One loss a pair."""
        c = self.config.loss
        margin, e = c.beta * (chosen - rejected), c.label_smoothing
        right, wrong = F.logsigmoid(margin), F.logsigmoid(-margin)
        return right.exp() * (right - log(1 - e)) + wrong.exp() * (wrong - log(e))
