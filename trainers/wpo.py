"""Weighted preference optimization. Zhou et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from prospect.batch import Logps, Loss
from prospect.config.schema import LossConfig
from trainers.paired import PairedPreferenceTrainer


class WPOTrainer(PairedPreferenceTrainer):
    """DPO in which a pair counts as much as the policy would write it: min(1, π̄(y_w) π̄(y_l)), without gradient.

    π̄ is the geometric mean of an answer's token probabilities.
    """

    paper = "Zhou et al. 2024, WPO, eq. 2 (arXiv 2406.11827)"
    formula = "−w log σ({beta} Δ), w = min(1, exp(l_w/|y_w| + l_l/|y_l|))"
    holds_still = True

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta``: as in DPO."""

        beta: float = 0.1

    def loss(
        self,
        policy_chosen_logps: Logps,
        policy_rejected_logps: Logps,
        reference_chosen_logps: Logps,
        reference_rejected_logps: Logps,
    ) -> Loss:
        """One loss a pair."""
        beta = self.config.loss.beta
        chosen = beta * (policy_chosen_logps.sums - reference_chosen_logps.sums)
        rejected = beta * (policy_rejected_logps.sums - reference_rejected_logps.sums)
        weights = (policy_chosen_logps.means + policy_rejected_logps.means).detach().exp().clamp(max=1)
        return Loss(-weights * F.logsigmoid(chosen - rejected), chosen, rejected, {"weights": weights})
