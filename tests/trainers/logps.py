"""Log-probabilities written by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from prospect.batch import Logps


def logps(*answers: Sequence[float]) -> Logps:
    """One answer an argument: its tokens' log-probabilities."""
    lengths = torch.tensor([len(answer) for answer in answers], dtype=torch.int64)
    tokens = torch.tensor([x for answer in answers for x in answer], dtype=torch.float32)
    return Logps(tokens, torch.repeat_interleave(torch.arange(len(answers)), lengths), lengths)
