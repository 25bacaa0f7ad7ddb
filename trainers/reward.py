"""Reward model: Bradley-Terry on pairs. Ouyang et al. 2022, eq. 1; margin: Touvron et al. 2023, eq. 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from prospect.batch import Loss, Scores
from prospect.config import schema
from prospect.config.schema import LossConfig
from prospect.errors import UserError
from prospect.logs import log
from trainers.paired import PairedPreferenceTrainer

if TYPE_CHECKING:
    from dataloaders.loader import Data
    from prospect.parallel import World


class RewardTrainer(PairedPreferenceTrainer):
    """How far the better answer's score is above the worse one's; a score is read at an answer's last token.

    The second term (Eisenstein et al. 2023) settles what pairs leave open: where the scores' zero lies.
    """

    paper = "Ouyang et al. 2022, eq. 1 (arXiv 2203.02155); margin: Touvron et al. 2023, eq. 2 (arXiv 2307.09288)"
    formula = "−log σ(s_w − s_l − m) + c (s_w + s_l)², s: score of an answer, m = {margin}, c = {center}"
    head = "score"
    needs_reference = False

    @dataclass(slots=True)
    class Config(LossConfig):
        """``margin``: none, a number, or data: the difference of a pair's scores in the data, 0 where it has none."""

        margin: str = "none"
        center: float | None = None

    def __init__(self, config: schema.Config) -> None:
        super().__init__(config)
        self.margin = _margin(config.loss.margin)

    def prepare(self, data: Data, world: World) -> Data:
        """Say how many pairs have a margin, where the data are to give it."""
        if self.margin is None:
            graded = data.train.joined("graded")
            if not graded.any():
                raise UserError(
                    f"loss.margin: data, but no pair of {', '.join(data.train.names)} has scores "
                    "(in files: score_chosen and score_rejected); loss.margin=none or a number"
                )
            log.info("margin: from the scores of %d of %d pairs, 0 for the others", graded.sum(), len(graded))
        return data

    def loss(self, policy_chosen_scores: Scores, policy_rejected_scores: Scores) -> Loss:
        """One loss a pair; rewards are the scores."""
        chosen, rejected = policy_chosen_scores.values.double(), policy_rejected_scores.values.double()
        margin = self._margins(policy_chosen_scores.grades, policy_rejected_scores.grades, chosen)
        losses = -F.logsigmoid(chosen - rejected - margin)
        if self.config.loss.center is not None:
            losses = losses + self.config.loss.center * (chosen + rejected) ** 2
        return Loss(losses, chosen, rejected)

    def _margins(self, chosen: Tensor | None, rejected: Tensor | None, like: Tensor) -> Tensor:
        if self.margin is not None:
            return torch.full_like(like, self.margin)
        assert chosen is not None
        assert rejected is not None
        return (chosen - rejected).nan_to_num(nan=0.0)


def _margin(given: str) -> float | None:
    """The number; None where the data give it."""
    if given in ("none", "data"):
        return 0.0 if given == "none" else None
    try:
        return float(given)
    except ValueError:
        raise UserError(f"loss.margin: {given!r} is neither none nor data nor a number") from None
