"""Metrics of many answers, gathered over micro-batches and processes, and reduced once under the field's names.

Accuracies, margins and the like follow from rewards and are computed here for every loss alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from prospect.stats.roc import auc

PART = "loss/"  # begins the name of a part of a loss; the loss is their sum


@dataclass(slots=True)
class Tally:
    """Sums and counts under a name, and the rewards themselves; tallies of several processes add up."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    chosen: list[float] = field(default_factory=list)
    rejected: list[float] = field(default_factory=list)
    paired: bool = False

    def add(self, name: str, values: Tensor, count: float | None = None) -> None:
        """Add values to a mean; ``count`` where they are sums over more than one item each."""
        self.sums[name] = self.sums.get(name, 0.0) + float(values.detach().double().sum())
        self.counts[name] = self.counts.get(name, 0.0) + (values.numel() if count is None else count)

    def rewards(self, chosen: Tensor, rejected: Tensor, paired: bool) -> None:
        """Add rewards of chosen and rejected answers; ``paired``: entry i of both belongs to one pair."""
        self.chosen.extend(chosen.detach().double().tolist())
        self.rejected.extend(rejected.detach().double().tolist())
        self.paired = paired

    @classmethod
    def joined(cls, tallies: Iterable[Tally]) -> Tally:
        """One tally of all."""
        total = cls()
        for tally in tallies:
            for name, value in tally.sums.items():
                total.sums[name] = total.sums.get(name, 0.0) + value
                total.counts[name] = total.counts.get(name, 0.0) + tally.counts[name]
            total.chosen.extend(tally.chosen)
            total.rejected.extend(tally.rejected)
            total.paired |= tally.paired
        return total

    def means(self) -> dict[str, float]:
        """All metrics. Pairs give ``rewards/accuracies``, single answers the area under the ROC curve of rewards."""
        found = {name: self.sums[name] / self.counts[name] for name in sorted(self.sums) if self.counts[name]}
        parts = [value for name, value in found.items() if name.startswith(PART)]
        if parts:
            found["loss"] = sum(parts)
        chosen, rejected = np.array(self.chosen), np.array(self.rejected)
        if len(chosen):
            found["rewards/chosen"] = float(chosen.mean())
        if len(rejected):
            found["rewards/rejected"] = float(rejected.mean())
        if len(chosen) and len(rejected):
            found["rewards/margins"] = float(chosen.mean() - rejected.mean())
            if self.paired:
                found["rewards/accuracies"] = float((chosen > rejected).mean())
            else:
                found["rewards/auc"] = auc(chosen, rejected)
        return found
