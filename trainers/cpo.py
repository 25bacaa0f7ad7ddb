"""Contrastive preference optimization. Xu et al. 2024, eq. 3."""

from __future__ import annotations

from dataclasses import dataclass

from prospect.batch import Logps, Loss, Over, Term
from prospect.config.schema import LossConfig
from trainers.cdpo import smoothed
from trainers.paired import PairedPreferenceTrainer


class CPOTrainer(PairedPreferenceTrainer):
    """DPO with a uniform reference, over pairs, plus α times the likelihood of chosen answers, over their tokens."""

    paper = "Xu et al. 2024, Contrastive Preference Optimization, eq. 3 (arXiv 2401.08417)"
    formula = (
        "−(1−{label_smoothing}) log σ({beta} (l_w − l_l)) − {label_smoothing} log σ({beta} (l_l − l_w)) − "
        "{sft_weight} l_w per token"
    )
    needs_reference = False

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta`` as in DPO; ``sft_weight``: α; ``label_smoothing``: ε."""

        beta: float = 0.1
        sft_weight: float = 1.0
        label_smoothing: float = 0.0

    def loss(self, policy_chosen_logps: Logps, policy_rejected_logps: Logps) -> Loss:
        """The contrast, one a pair, and the likelihood as a term over chosen tokens; rewards are β log π."""
        c = self.config.loss
        chosen, rejected = c.beta * policy_chosen_logps.sums, c.beta * policy_rejected_logps.sums
        losses = smoothed(chosen - rejected, c.label_smoothing)
        likelihood = Term(-c.sft_weight * policy_chosen_logps.sums, Over.chosen_tokens)
        return Loss(losses, chosen, rejected, terms={"sft": likelihood})
