"""Conservative DPO: pairs whose order may be wrong. Mitchell 2023."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch.nn.functional as F
from torch import Tensor

from prospect.config.schema import LossConfig
from trainers.paired import LogRatioTrainer


class CDPOTrainer(LogRatioTrainer):
    """DPO against labels that are wrong with probability ε: the margin has an optimum instead of growing for ever."""

    paper = "Mitchell 2023, A note on DPO with noisy preferences"
    formula = "−(1 − {label_smoothing}) log σ({beta} Δ) − {label_smoothing} log σ(−{beta} Δ)"

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta``: as in DPO; ``label_smoothing``: ε, the share of pairs whose order is taken to be wrong."""

        beta: float = 0.1
        label_smoothing: float = 0.2

    def at_start(self) -> dict[str, float]:
        """ln 2."""
        return {"loss": log(2)}

    def of_ratios(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """One loss a pair."""
        c = self.config.loss
        return smoothed(c.beta * (chosen - rejected), c.label_smoothing)


def smoothed(margin: Tensor, label_smoothing: float) -> Tensor:
    """−(1−ε) log σ(m) − ε log σ(−m) of each margin [n]: a logistic loss whose label is wrong with probability ε."""
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
