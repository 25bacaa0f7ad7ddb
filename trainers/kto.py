"""Kahneman-Tversky optimization. Ethayarajh et al. 2024, eq. 8 and section 4.1."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dataloaders.order import Partner
from dataloaders.packing import Sequence
from dataloaders.tokenization import Tokenized
from prospect.batch import Logps, Loss
from trainers.humanline import HumanlineConfig, humanline
from trainers.unpaired import UnpairedPreferenceTrainer
from trainers.weights import WeightedConfig

if TYPE_CHECKING:
    from dataloaders.loader import Data


class Compat(StrEnum):
    """Whose reference point to reproduce."""

    halos_legacy = "halos-legacy"
    halos_main = "halos-main"
    trl = "trl"


class KTOTrainer(UnpairedPreferenceTrainer):
    """How much better than a reference point an answer's log-ratio is, through a value that saturates on both sides.

    The reference point z estimates KL(π‖π_ref) as the mean of h over answers to other prompts, clamped at 0 after the
    mean; it is taken over the whole optimizer batch and carries no gradient.

    ``compat`` takes it as others do, and then it depends on how a batch is cut: each micro-batch (batch_size over
    gradient_accumulation_steps records, in order) has a point of its own, from the answers of the next record in the
    batch (halos-legacy, as it is in one process: in more it loses its sum), of the next in the micro-batch (halos-main,
    which leaves values of exactly 0 out), or of the one before there (trl), whatever their prompts.
    """

    paper = "Ethayarajh et al. 2024, eq. 8 (arXiv 2402.01306)"
    formula = (
        "{desirable_weight} [1 − σ({beta} (h_w − z))], {undesirable_weight} [1 − σ({beta} (z − h_l))], z = max(0, "
        "mean h of answers to other prompts)"
    )
    needs_mismatched = True

    @dataclass(slots=True)
    class Config(HumanlineConfig, WeightedConfig):
        """``beta`` as in DPO; the weights should keep w_D·n_D / w_U·n_U within [1, 4/3]; ``compat``: see the class."""

        beta: float = 0.1
        compat: Compat | None = None

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
        if c.compat is Compat.halos_main:
            drift = drift[drift != 0]
        kl = drift.mean().clamp(min=0) if len(drift) else drift.new_zeros(())
        return around(kl, chosen, rejected, c, self.disutility)

    def mismatches(self, data: Data, records: Seq[Tokenized], number: int) -> list[Sequence | None]:
        """Drawn, or a neighbour's for compatibility: of the batch, or of the micro-batch."""
        compat = self.config.loss.compat
        if compat is None:
            return data.mismatches(records, number)
        if compat is Compat.halos_legacy:
            return data.mismatches(records, number, Partner.following)
        partner = Partner.following if compat is Compat.halos_main else Partner.preceding
        return [item for part in self.scopes(records) for item in data.mismatches(part, number, partner)]

    def scopes(self, records: Seq[Tokenized]) -> list[Seq[Tokenized]]:
        """Micro-batches, for compatibility."""
        size = len(records)
        if self.config.loss.compat is not None:
            size = -(-self.config.model.batch_size // self.config.model.gradient_accumulation_steps)
        return [records[at : at + size] for at in range(0, len(records), size)]

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
