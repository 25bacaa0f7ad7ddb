"""Simple preference optimization. Meng et al. 2024, eq. 6; AlphaPO's reward: Gupta et al. 2025."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prospect.batch import Logps, Loss
from prospect.config.schema import LossConfig
from trainers.paired import PairedPreferenceTrainer

_LARGEST = 80.0  # exponent at which AlphaPO's reward is cut off, far below overflow


class SimPOTrainer(PairedPreferenceTrainer):
    """A reward that is the answer's own log-probability a token, with a target margin γ; no reference model.

    ``alpha`` other than 0 is AlphaPO: r = β (1 − p^−α)/α with log p the mean, instead of β log p.
    """

    paper = "Meng et al. 2024, eq. 6 (arXiv 2405.14734)"
    formula = "−log σ({beta} [l_w/|y_w| − l_l/|y_l| − {gamma_beta_ratio}])"
    needs_reference = False

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta``: 2 to 10; ``gamma_beta_ratio``: γ, the target margin over β, 0.3 to 0.5; ``alpha``: AlphaPO's."""

        beta: float = 2.0
        gamma_beta_ratio: float = 0.5
        alpha: float = 0.0

    def loss(self, policy_chosen_logps: Logps, policy_rejected_logps: Logps) -> Loss:
        """One loss a pair."""
        c = self.config.loss
        chosen = c.beta * _reward(policy_chosen_logps.means, c.alpha)
        rejected = c.beta * _reward(policy_rejected_logps.means, c.alpha)
        return Loss(-F.logsigmoid(chosen - rejected - c.beta * c.gamma_beta_ratio), chosen, rejected)


def _reward(logp: Tensor, alpha: float) -> Tensor:
    return logp if alpha == 0 else (1 - torch.exp((-alpha * logp).clamp(max=_LARGEST))) / alpha
