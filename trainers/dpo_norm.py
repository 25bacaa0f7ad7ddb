"""Length-normalized DPO. Lambert et al. 2024 (Tülu 3)."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch.nn.functional as F

from prospect.batch import Logps, Loss
from prospect.config.schema import LossConfig
from trainers.paired import PairedPreferenceTrainer


class DPONormTrainer(PairedPreferenceTrainer):
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

    def loss(
        self,
        policy_chosen_logps: Logps,
        policy_rejected_logps: Logps,
        reference_chosen_logps: Logps,
        reference_rejected_logps: Logps,
    ) -> Loss:
        """One loss a pair."""
        beta = self.config.loss.beta
        chosen = beta * (policy_chosen_logps.means - reference_chosen_logps.means)
        rejected = beta * (policy_rejected_logps.means - reference_rejected_logps.means)
        return Loss(-F.logsigmoid(chosen - rejected), chosen, rejected)
