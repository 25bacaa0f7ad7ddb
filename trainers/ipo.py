"""Identity preference optimization. Azar et al. 2023, eq. 17."""

from __future__ import annotations

from dataclasses import dataclass

from prospect.batch import Logps, Loss
from prospect.config.schema import LengthNorm, LossConfig
from trainers.paired import PairedPreferenceTrainer


class IPOTrainer(PairedPreferenceTrainer):
    """The margin is regressed on 1/(2τ): it stops growing where DPO's does not.

    The paper's margin is of whole answers (``length_norm: sum``); as a mean over each answer's tokens, the default, τ
    means the same for short and long answers.
    """

    paper = "Azar et al. 2023, eq. 17 (arXiv 2310.12036)"
    formula = "(h_w/|y_w| − h_l/|y_l| − 1/(2·{tau}))²"

    @dataclass(slots=True)
    class Config(LossConfig):
        """``tau``: the lower, the larger the margin that is aimed at; ``length_norm``: means or sums over tokens."""

        tau: float = 0.1
        length_norm: LengthNorm = LengthNorm.mean

    def at_start(self) -> dict[str, float]:
        """1/(2τ)²."""
        return {"loss": 1 / (2 * self.config.loss.tau) ** 2}

    def loss(
        self,
        policy_chosen_logps: Logps,
        policy_rejected_logps: Logps,
        reference_chosen_logps: Logps,
        reference_rejected_logps: Logps,
    ) -> Loss:
        """One loss a pair; rewards are τ times what is compared."""
        c = self.config.loss
        chosen = policy_chosen_logps.sums - reference_chosen_logps.sums
        rejected = policy_rejected_logps.sums - reference_rejected_logps.sums
        if c.length_norm is LengthNorm.mean:
            chosen, rejected = chosen / policy_chosen_logps.lengths, rejected / policy_rejected_logps.lengths
        return Loss((chosen - rejected - 1 / (2 * c.tau)) ** 2, c.tau * chosen, c.tau * rejected)
