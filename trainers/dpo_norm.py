"""Length-normalized DPO. Lambert et al. 2024 (Tülu 3)."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch.nn.functional as F
from torch import Tensor

from prospect.batch import Logps
from prospect.config.schema import LossConfig
from trainers.paired import LogRatioTrainer


class DPONormTrainer(LogRatioTrainer):
    """DPO on log-ratios a token: long answers do not win by their length."""

    paper = "Lambert et al. 2024, Tülu 3 (arXiv 2411.15124)"
    formula = "−log σ({beta} [h_w/|y_w| − h_l/|y_l|])"

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta``: larger than DPO's, since log-ratios a token are small."""

        beta: float = 5.0

    def at_start(self) -> dict[str, float]:
        """ln 2."""
        return {"loss": log(2)}

    def log_ratio(self, policy: Logps, reference: Logps) -> Tensor:
        """A token's mean, in nats."""
        return policy.means - reference.means

    def of_ratios(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """One loss a pair."""
        return -F.logsigmoid(self.config.loss.beta * (chosen - rejected))
