"""Self-play preference optimization with hard labels. Wu et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prospect.config.schema import LossConfig
from trainers.paired import LogRatioTrainer


class SPPOTrainer(LogRatioTrainer):
    """Each log-ratio is regressed on the log-odds of winning: +1/(2β) for the winner, −1/(2β) for the loser."""

    paper = "Wu et al. 2024, Self-Play Preference Optimization, eq. 4.7 (arXiv 2405.00675)"
    formula = "(h_w − 1/(2·{beta}))² + (h_l + 1/(2·{beta}))²"

    @dataclass(slots=True)
    class Config(LossConfig):
        """``beta``: as in DPO."""

        beta: float = 0.1

    def at_start(self) -> dict[str, float]:
        """1/(2β²)."""
        return {"loss": 1 / (2 * self.config.loss.beta**2)}

    def of_ratios(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """One loss a pair."""
        goal = 1 / (2 * float(self.config.loss.beta))
        return (chosen - goal) ** 2 + (rejected + goal) ** 2
