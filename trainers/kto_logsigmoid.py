"""KTO with a logarithmic value: an ablation of Ethayarajh et al. 2024."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainers.kto import KTOTrainer


class KTOLogSigmoidTrainer(KTOTrainer):
    """KTO whose value is concave everywhere: losses far below the reference point keep their full weight."""

    paper = "Ethayarajh et al. 2024, ablations of the Archangel suite (arXiv 2402.01306)"
    formula = "−{desirable_weight} log σ({beta} (h_w − z)), −{undesirable_weight} log σ({beta} (z − h_l)), z as in kto"

    def disutility(self, gain: Tensor) -> Tensor:
        """−log σ(gain)."""
        return -F.logsigmoid(gain)
