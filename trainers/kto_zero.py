"""KTO with 0 as reference point: an ablation of Ethayarajh et al. 2024; APO-zero on single answers."""

from __future__ import annotations

from dataclasses import dataclass

from prospect.batch import Logps, Loss
from trainers.humanline import HumanlineConfig, humanline
from trainers.kto import around
from trainers.unpaired import UnpairedPreferenceTrainer
from trainers.weights import WeightedConfig


class KTOZeroTrainer(UnpairedPreferenceTrainer):
    """KTO without mismatched answers: cheaper, and right as long as the policy stays near the reference model."""

    paper = "Ethayarajh et al. 2024, ablations of the Archangel suite (arXiv 2402.01306)"
    formula = "{desirable_weight} [1 − σ({beta} h_w)], {undesirable_weight} [1 − σ(−{beta} h_l)]"

    @dataclass(slots=True)
    class Config(HumanlineConfig, WeightedConfig):
        """As in KTO."""

        beta: float = 0.1

    def at_start(self) -> dict[str, float]:
        """Half of the weight, where both kinds have the same."""
        c = self.config.loss
        return {"loss": c.desirable_weight / 2} if c.desirable_weight == c.undesirable_weight else {}

    def loss(
        self,
        policy_chosen_logps: Logps,
        policy_rejected_logps: Logps,
        reference_chosen_logps: Logps,
        reference_rejected_logps: Logps,
    ) -> Loss:
        """One loss an answer, chosen first."""
        c = self.config.loss
        chosen = humanline(policy_chosen_logps, reference_chosen_logps, c).sums - reference_chosen_logps.sums
        rejected = humanline(policy_rejected_logps, reference_rejected_logps, c).sums - reference_rejected_logps.sums
        return around(chosen.new_zeros(()), chosen, rejected, c)
