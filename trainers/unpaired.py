"""Losses on single answers with a verdict: desirable or not."""

from __future__ import annotations

from torch import Tensor

from dataloaders.records import RecordKind
from prospect.batch import Logps, Loss
from trainers.basic import BasicTrainer, Mismatched, preference_arguments


class UnpairedPreferenceTrainer(BasicTrainer):
    """``loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps)``.

    Chosen are the desirable answers, rejected the others; a micro-batch may lack either kind. With
    ``needs_mismatched`` two more arguments follow, ``policy_kl_logps`` and ``reference_kl_logps``: the same prompts
    with answers to other prompts, of the whole optimizer batch and without gradients. What is the reference's is left
    out where ``needs_reference`` is false. Returns one loss an answer, chosen first.
    """

    records = RecordKind.labelled
    needs_reference = True

    def losses(self, policy: Logps, reference: Logps | None, chosen: Tensor, kl: Mismatched | None) -> Loss:
        """Split by role."""
        return self.loss(*preference_arguments(policy, reference, chosen, kl))
