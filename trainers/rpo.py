"""Regularized preference optimization: DPO beside the chosen answers' likelihood. Pang et al. 2024; Liu et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch.nn.functional as F
from torch import Tensor

from prospect.batch import Logps, Loss, Over, Term
from prospect.config.schema import LossConfig
from trainers.paired import LogRatioTrainer


class RPOTrainer(LogRatioTrainer):
    """DPO, over pairs, plus α times the negative log-likelihood of chosen answers, over their tokens.

    The likelihood of chosen answers does not fall as it may with DPO alone.
    """

    paper = "Pang et al. 2024, Iterative Reasoning Preference Optimization, eq. 1 (arXiv 2404.19733)"
    formula = "−log σ({beta} Δ) − {sft_weight} l_w per token"

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta`` as in DPO; ``sft_weight``: α."""

        beta: float = 0.1
        sft_weight: float = 1.0

    def at_start(self) -> dict[str, float]:
        """ln 2 for DPO's part."""
        return {"loss/rpo": log(2)}

    def loss(
        self,
        policy_chosen_logps: Logps,
        policy_rejected_logps: Logps,
        reference_chosen_logps: Logps,
        reference_rejected_logps: Logps,
    ) -> Loss:
        """DPO's losses, one a pair, and the likelihood as a term over chosen tokens."""
        dpo = super().loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps)
        nll = Term(-self.config.loss.sft_weight * policy_chosen_logps.sums, Over.chosen_tokens)
        return Loss(dpo.losses, dpo.chosen_rewards, dpo.rejected_rewards, terms={"sft": nll})

    def of_ratios(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """DPO's part."""
        return -F.logsigmoid(self.config.loss.beta * (chosen - rejected))
