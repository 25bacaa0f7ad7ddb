"""KTO on surprisal, without a reference model: an ablation of Ethayarajh et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass

from prospect.batch import Logps, Loss
from trainers.kto import around
from trainers.unpaired import UnpairedPreferenceTrainer
from trainers.weights import WeightedConfig


class KTOSurprisalTrainer(UnpairedPreferenceTrainer):
    """KTO whose reward is the answer's log-probability a token, s, against the mean of the same over other answers."""

    paper = "Ethayarajh et al. 2024, ablations of the Archangel suite (arXiv 2402.01306)"
    formula = (
        "{desirable_weight} [1 − σ({beta} (s_w − z))], {undesirable_weight} [1 − σ({beta} (z − s_l))], s = l/|y|, "
        "z = mean s of answers to other prompts"
    )
    needs_reference = False
    needs_mismatched = True

    @dataclass(slots=True)
    class Config(WeightedConfig):
        """``beta``: slope of the value in nats a token; the weights as in KTO."""

        beta: float = 0.1

    def loss(self, policy_chosen_logps: Logps, policy_rejected_logps: Logps, policy_kl_logps: Logps) -> Loss:
        """One loss an answer, chosen first; rewards are β s."""
        c = self.config.loss
        chosen, rejected, others = policy_chosen_logps.means, policy_rejected_logps.means, policy_kl_logps.means
        return around(others.mean() if len(others) else others.new_zeros(()), chosen, rejected, c)
