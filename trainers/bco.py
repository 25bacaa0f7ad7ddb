"""Binary classifier optimization. Jung et al. 2024, with the reward shift."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F

from prospect.batch import Logps, Loss
from prospect.config.schema import LossConfig
from trainers.unpaired import UnpairedPreferenceTrainer


class BCOTrainer(UnpairedPreferenceTrainer):
    """A binary classifier whose logit is the reward over a shift δ that follows the mean reward.

    δ is an exponential mean over optimizer steps of the whole batch's mean reward, this one's included; it carries no
    gradient, and a resumed run continues with it.
    """

    paper = "Jung et al. 2024, Binary Classifier Optimization (arXiv 2404.04656)"
    formula = (
        "−log σ({beta} h_w − δ), −log σ(δ − {beta} h_l), δ = running mean of {beta} h, "
        "of which {shift_decay} from earlier steps"
    )
    whole_batch = True
    holds_still = True

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta`` as in DPO; ``shift_decay``: weight of earlier steps in δ."""

        beta: float = 0.1
        shift_decay: float = 0.9

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
        """One loss an answer, chosen first."""
        c = self.config.loss
        chosen = c.beta * (policy_chosen_logps.sums - reference_chosen_logps.sums)
        rejected = c.beta * (policy_rejected_logps.sums - reference_rejected_logps.sums)
        mean = torch.cat([chosen, rejected]).detach().mean()
        shift = c.shift_decay * self.state["shift"] + (1 - c.shift_decay) * mean if "shift" in self.state else mean
        losses = torch.cat([-F.logsigmoid(chosen - shift), -F.logsigmoid(shift - rejected)])
        return Loss(losses, chosen, rejected, {"shift": shift.expand(len(losses))})

    def settle(self, loss: Loss) -> None:
        """Keep δ for the next step."""
        self.state["shift"] = float(loss.metrics["shift"][0])
