"""Length-desensitized DPO. Liu et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

from prospect.batch import Logps, Loss
from prospect.config.schema import LossConfig
from trainers.paired import LogRatioTrainer


class LDDPOTrainer(LogRatioTrainer):
    """DPO in which the tokens beyond the shorter answer's length count α: length alone earns less."""

    paper = "Liu et al. 2024, Length Desensitization in DPO (arXiv 2409.06411)"
    formula = "−log σ({beta} Δ), tokens beyond min(|y_w|, |y_l|) times {alpha}"

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta`` as in DPO; ``alpha``: 1 is DPO, 0 forgets what stands beyond the shorter answer's length."""

        beta: float = 0.1
        alpha: float = 0.5

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
        """One loss a pair."""
        common = torch.minimum(policy_chosen_logps.lengths, policy_rejected_logps.lengths)
        answers = (policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps)
        return super().loss(*(_weighted(answer, common, self.config.loss.alpha) for answer in answers))

    def of_ratios(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """DPO's."""
        return -F.logsigmoid(self.config.loss.beta * (chosen - rejected))


def _weighted(logps: Logps, common: Tensor, alpha: float) -> Logps:
    """The same answers, in which tokens at ``common`` [n] and beyond count ``alpha``."""
    starts = logps.lengths.cumsum(0) - logps.lengths
    place = torch.arange(len(logps.tokens), device=logps.tokens.device) - starts[logps.segment]
    return replace(logps, tokens=torch.where(place < common[logps.segment], logps.tokens, alpha * logps.tokens))
