"""Metrics: closed forms, and sums that do not depend on how answers are dealt out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prospect.metrics import Tally
from prospect.stats.roc import auc

CHOSEN, REJECTED = torch.tensor([1.0, 2.0, 3.0, 0.0]), torch.tensor([0.0, 2.0, 4.0, -1.0])


def tally(*parts: slice, paired: bool) -> Tally:
    tallies = []
    for part in parts:
        one = Tally()
        one.add("loss", CHOSEN[part])
        one.rewards(CHOSEN[part], REJECTED[part], paired)
        tallies.append(one)
    return Tally.joined(tallies)


def test_pairs() -> None:
    assert tally(slice(None), paired=True).means() == {
        "loss": 1.5,
        "rewards/chosen": 1.5,
        "rewards/rejected": 1.25,
        "rewards/margins": 0.25,
        "rewards/accuracies": 0.5,  # a tie is no win
    }


def test_single_answers_give_an_area() -> None:
    found = tally(slice(None), paired=False).means()
    wins = sum((c > r) + 0.5 * (c == r) for c in CHOSEN.tolist() for r in REJECTED.tolist())
    assert found["rewards/auc"] == pytest.approx(wins / 16)
    assert "rewards/accuracies" not in found


@pytest.mark.parametrize("paired", [True, False])
def test_parts_of_unequal_size_give_the_same(paired: bool) -> None:
    whole = tally(slice(None), paired=paired).means()
    assert tally(slice(0, 1), slice(1, 4), paired=paired).means() == pytest.approx(whole)


def test_counts_weigh_sums_over_tokens() -> None:
    one, two = Tally(), Tally()
    one.add("loss", torch.tensor([30.0]), count=3)
    two.add("loss", torch.tensor([900.0]), count=900)
    assert Tally.joined([one, two]).means()["loss"] == pytest.approx(930 / 903)


@pytest.mark.parametrize(
    ("chosen", "rejected", "area"),
    [([2, 3], [0, 1], 1.0), ([0], [1, 2], 0.0), ([1, 1], [1, 1, 1], 0.5), ([1, 3], [2], 0.5)],
)
def test_area(chosen: list[float], rejected: list[float], area: float) -> None:
    assert auc(np.array(chosen), np.array(rejected)) == pytest.approx(area)


def test_one_kind_alone_has_no_margin() -> None:
    one = Tally()
    one.rewards(CHOSEN, torch.empty(0), paired=False)
    assert one.means() == {"rewards/chosen": 1.5}
    assert Tally().means() == {}
