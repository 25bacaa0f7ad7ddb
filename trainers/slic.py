"""Sequence likelihood calibration. Zhao et al. 2023, rank calibration with a regularizer."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from prospect.batch import Logps, Loss
from prospect.config.schema import LossConfig
from trainers.paired import PairedPreferenceTrainer


class SLiCTrainer(PairedPreferenceTrainer):
    """A margin of δ between the answers' log-probabilities, plus λ times the chosen one's, both as means over pairs."""

    paper = "Zhao et al. 2023, SLiC-HF, eq. 1 (arXiv 2305.10425)"
    formula = "max(0, {delta} − l_w + l_l) − {sft_weight} l_w"
    needs_reference = False

    @dataclass(slots=True)
    class Config(LossConfig):
        """``delta``: δ in nats; ``sft_weight``: λ, of the chosen answer's whole log-probability."""

        delta: float = 1.0
        sft_weight: float = 0.1

    def loss(self, policy_chosen_logps: Logps, policy_rejected_logps: Logps) -> Loss:
        """One loss a pair; rewards are log π."""
        c = self.config.loss
        chosen, rejected = policy_chosen_logps.sums, policy_rejected_logps.sums
        return Loss(F.relu(c.delta - chosen + rejected) - c.sft_weight * chosen, chosen, rejected)
