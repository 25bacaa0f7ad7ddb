"""Kahneman-Tversky optimization. Ethayarajh et al. 2024, eq. 8 and section 4.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from prospect.batch import Logps, Loss
from prospect.config.schema import LossConfig
from trainers.unpaired import UnpairedPreferenceTrainer


class KTOTrainer(UnpairedPreferenceTrainer):
    """w_D (1 − σ(β(h − z))) for desirable answers, w_U (1 − σ(β(z − h))) for others; h = log π − log π_ref.

    The reference point z estimates KL(π‖π_ref) as the mean of h over answers to other prompts, clamped at 0 after the
    mean; it is taken over the whole optimizer batch and carries no gradient.
    """

    needs_mismatched: ClassVar[bool] = True
    at_start: ClassVar[dict[str, float]] = {"kl": 0.0}

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta`` as in DPO; the weights should keep w_D·n_D / w_U·n_U within [1, 4/3]."""

        beta: float = 0.1
        desirable_weight: float = 1.0
        undesirable_weight: float = 1.0

    def loss(
        self,
        policy_chosen_logps: Logps,
        policy_rejected_logps: Logps,
        reference_chosen_logps: Logps,
        reference_rejected_logps: Logps,
        policy_kl_logps: Logps,
        reference_kl_logps: Logps,
    ) -> Loss:
        """One loss an answer, chosen first; without any mismatched answer (a single prompt) z is 0."""
        c = self.config.loss
        drift = policy_kl_logps.sums - reference_kl_logps.sums
        kl = drift.mean().clamp(min=0) if len(drift) else drift.new_zeros(())
        chosen = policy_chosen_logps.sums - reference_chosen_logps.sums
        rejected = policy_rejected_logps.sums - reference_rejected_logps.sums
        losses = torch.cat(
            [
                c.desirable_weight * (1 - torch.sigmoid(c.beta * (chosen - kl))),
                c.undesirable_weight * (1 - torch.sigmoid(c.beta * (kl - rejected))),
            ]
        )
        return Loss(losses, c.beta * chosen, c.beta * rejected, {"kl": kl.expand(len(losses))})
