"""Log-probabilities written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from prospect.batch import Logps


def logps(*answers: Sequence[float]) -> Logps:
    """One answer an argument: its tokens' log-probabilities."""
    lengths = torch.tensor([len(answer) for answer in answers], dtype=torch.int64)
    tokens = torch.tensor([x for answer in answers for x in answer], dtype=torch.float32)
    return Logps(tokens, torch.repeat_interleave(torch.arange(len(answers)), lengths), lengths)


def valued(tokens: Sequence[Sequence[float]], values: Sequence[Sequence[float]], grades: Sequence[float] = ()) -> Logps:
    """The same in float64 with a value each token, and with what each answer is worth."""
    wide = [torch.tensor([x for answer in part for x in answer], dtype=torch.float64) for part in (tokens, values)]
    worth = torch.tensor(grades, dtype=torch.float64) if grades else None
    return replace(logps(*tokens), tokens=wide[0], values=wide[1], grades=worth)
