"""Alignment via optimal transport, unpaired. Melnyk et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from prospect.batch import Logps, Loss
from prospect.config.schema import LossConfig
from trainers.cdpo import smoothed
from trainers.unpaired import UnpairedPreferenceTrainer


class AOTUnpairedTrainer(UnpairedPreferenceTrainer):
    """Log-ratios of chosen answers dominate those of rejected ones, quantile by quantile over the optimizer batch.

    Each answer is compared with the other kind's quantile at its own rank: with as many of both, each comparison counts
    for both of its answers.
    """

    paper = "Melnyk et al. 2024, Distributional Preference Alignment via Optimal Transport (arXiv 2406.05882)"
    formula = "−log σ({beta} d), d = sort(h_w) − sort(h_l), with label_smoothing as in cdpo"
    whole_batch = True
    balanced = True

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
        """One loss an answer, chosen first, each kind by rank; a batch without one kind has nothing to compare: 0."""
        c = self.config.loss
        chosen = c.beta * (policy_chosen_logps.sums - reference_chosen_logps.sums)
        rejected = c.beta * (policy_rejected_logps.sums - reference_rejected_logps.sums)
        if not len(chosen) or not len(rejected):
            return Loss(0 * torch.cat([chosen, rejected]), chosen, rejected)
        above, below = chosen.sort().values, rejected.sort().values
        margin = torch.cat([above - _quantiles(below, len(above)), _quantiles(above, len(below)) - below])
        return Loss(smoothed(margin, c.label_smoothing), chosen, rejected)


def _quantiles(ascending: Tensor, count: int) -> Tensor:
    """The empirical quantiles of ``ascending`` [n] at the middles of ``count`` equal shares, [count]."""
    at = (2 * torch.arange(count, device=ascending.device) + 1) * len(ascending) // (2 * count)
    return ascending[at]
