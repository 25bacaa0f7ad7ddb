"""Alignment via optimal transport, paired. Melnyk et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from prospect.batch import Logps, Loss
from prospect.config.schema import LossConfig
from trainers.cdpo import smoothed
from trainers.paired import PairedPreferenceTrainer


class AOTTrainer(PairedPreferenceTrainer):
    """The policy's margins dominate the reference's quantile by quantile, sorted over the whole optimizer batch."""

    paper = "Melnyk et al. 2024, Distributional Preference Alignment via Optimal Transport (arXiv 2406.05882)"
    formula = "−log σ({beta} d), d = sort(l_w − l_l) − sort(r_w − r_l), with label_smoothing as in cdpo"
    whole_batch = True

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta`` as in DPO; ``label_smoothing``: ε."""

        beta: float = 0.1
        label_smoothing: float = 0.0

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
        """One loss a quantile, as many as pairs; rewards are those of DPO."""
        c = self.config.loss
        policy = policy_chosen_logps.sums - policy_rejected_logps.sums
        reference = reference_chosen_logps.sums - reference_rejected_logps.sums
        margin = c.beta * (policy.sort().values - reference.sort().values)
        chosen = policy_chosen_logps.sums - reference_chosen_logps.sums
        rejected = policy_rejected_logps.sums - reference_rejected_logps.sums
        return Loss(smoothed(margin, c.label_smoothing), c.beta * chosen, c.beta * rejected)
