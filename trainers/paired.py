"""Losses on pairs: a better and a worse answer to one prompt."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from dataloaders.records import RecordKind
from prospect.batch import Logps, Loss
from trainers.basic import BasicTrainer, preference_arguments


class PairedPreferenceTrainer(BasicTrainer):
    """``loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps)``.

    Entry i of each belongs to pair i; the two reference arguments are left out where ``needs_reference`` is false.
    Returns one loss a pair.
    """

    records: ClassVar[RecordKind] = RecordKind.pairs
    needs_reference: ClassVar[bool] = True

    def losses(self, policy: Logps, reference: Logps | None, chosen: Tensor, kl: tuple[Logps, Logps] | None) -> Loss:
        """Split by role."""
        return self.loss(*preference_arguments(policy, reference, chosen, kl))
