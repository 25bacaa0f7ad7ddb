"""SimpleKTO: the other half of the batch as reference point. Ethayarajh et al. 2023, report version."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from prospect.batch import Logps, Loss
from prospect.config.schema import LossConfig
from trainers.unpaired import UnpairedPreferenceTrainer


class SimpleKTOTrainer(UnpairedPreferenceTrainer):
    """KTO against the other half: KL of a half is the mean of its h, clamped at 0; a step has as many of both."""

    paper = "Ethayarajh et al. 2023, report"
    formula = "1 − σ({beta} (h_w − KL_l)), 1 − σ({beta} (KL_w − h_l)), KL = max(0, mean h)"
    whole_batch = True
    balanced = True

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta`` as in DPO."""

        beta: float = 0.1

    def at_start(self) -> dict[str, float]:
        """1/2."""
        return {"loss": 0.5}

    def loss(
        self,
        policy_chosen_logps: Logps,
        policy_rejected_logps: Logps,
        reference_chosen_logps: Logps,
        reference_rejected_logps: Logps,
    ) -> Loss:
        """One loss an answer, chosen first."""
        beta = self.config.loss.beta
        chosen = policy_chosen_logps.sums - reference_chosen_logps.sums
        rejected = policy_rejected_logps.sums - reference_rejected_logps.sums
        chosen_kl = chosen.mean().clamp(min=0) if len(chosen) else chosen.new_zeros(())
        rejected_kl = rejected.mean().clamp(min=0) if len(rejected) else rejected.new_zeros(())
        losses = torch.cat(
            [1 - torch.sigmoid(beta * (chosen - rejected_kl)), 1 - torch.sigmoid(beta * (chosen_kl - rejected))]
        )
        return Loss(losses, beta * chosen, beta * rejected)
