"""Kahneman-Tversky optimization. Ethayarajh et al. 2024, eq. 8 and section 4.1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prospect.batch import Logps, Loss
from trainers.humanline import HumanlineConfig, humanline
from trainers.unpaired import UnpairedPreferenceTrainer
from trainers.weights import WeightedConfig


class KTOTrainer(UnpairedPreferenceTrainer):
    """How much better than a reference point an answer's log-ratio is, through a value that saturates on both sides.

    The reference point z estimates KL(π‖π_ref) as the mean of h over answers to other prompts, clamped at 0 after the
    mean; it is taken over the whole optimizer batch and carries no gradient.
    """

    paper = "Ethayarajh et al. 2024, eq. 8 (arXiv 2402.01306)"
    formula = (
        "{desirable_weight} [1 − σ({beta} (h_w − z))], {undesirable_weight} [1 − σ({beta} (z − h_l))], z = max(0, "
        "mean h of answers to other prompts)"
    )
    needs_mismatched = True

    @dataclass(slots=True)
    class Config(HumanlineConfig, WeightedConfig):
        """``beta`` as in DPO; the weights should keep w_D·n_D / w_U·n_U within [1, 4/3]."""

        beta: float = 0.1

    def at_start(self) -> dict[str, float]:
        """No divergence yet."""
        return {"kl": 0.0}

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
        drift, chosen, rejected = (
            humanline(policy, reference, c).sums - reference.sums
            for policy, reference in (
                (policy_kl_logps, reference_kl_logps),
                (policy_chosen_logps, reference_chosen_logps),
                (policy_rejected_logps, reference_rejected_logps),
            )
        )
        kl = drift.mean().clamp(min=0) if len(drift) else drift.new_zeros(())
        return around(kl, chosen, rejected, c, self.disutility)

    def disutility(self, gain: Tensor) -> Tensor:
        """What an answer costs that is ``gain`` better than the reference point."""
        return saturating(gain)


def saturating(gain: Tensor) -> Tensor:
    """1 − σ(gain)."""
    return 1 - torch.sigmoid(gain)


def around(
    point: Tensor, chosen: Tensor, rejected: Tensor, config: Any, disutility: Callable[[Tensor], Tensor] = saturating
) -> Loss:
    """Losses of answers, chosen first, by how far their values [c] and [r] lie on the right side of ``point`` []."""
    c = config
    gains = (c.beta * (chosen - point), c.beta * (point - rejected))
    losses = torch.cat([c.desirable_weight * disutility(gains[0]), c.undesirable_weight * disutility(gains[1])])
    return Loss(losses, c.beta * chosen, c.beta * rejected, {"kl": point.expand(len(losses))})
