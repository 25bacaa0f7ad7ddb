"""Direct preference optimization. Rafailov et al. 2023, eq. 7."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch.nn.functional as F

from prospect.batch import Logps, Loss
from prospect.config.schema import LossConfig
from trainers.paired import PairedPreferenceTrainer


class DPOTrainer(PairedPreferenceTrainer):
    """−log σ(β [(log π − log π_ref)(y_w) − (log π − log π_ref)(y_l)])."""

    at_start: ClassVar[dict[str, float]] = {"loss": log(2)}

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta``: the lower, the further the policy may leave the reference model."""

        beta: float = 0.1

    def loss(
        self,
        policy_chosen_logps: Logps,
        policy_rejected_logps: Logps,
        reference_chosen_logps: Logps,
        reference_rejected_logps: Logps,
    ) -> Loss:
        """One loss a pair; rewards are β log(π/π_ref), eq. 5 up to the partition function."""
        beta = self.config.loss.beta
        chosen_rewards = beta * (policy_chosen_logps.sums - reference_chosen_logps.sums)
        rejected_rewards = beta * (policy_rejected_logps.sums - reference_rejected_logps.sums)
        return Loss(-F.logsigmoid(chosen_rewards - rejected_rewards), chosen_rewards, rejected_rewards)
