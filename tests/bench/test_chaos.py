"""The chaos of bench/chaos.py, small: kills and faults lose nothing, double nothing and change nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from bench import chaos
from tests.judge.bill import Bill


@pytest.mark.long
def test_small_chaos():
    found = chaos.chaos(comparisons=80, kills=2, processes=2, latency=0.02, timeout=1.0)
    assert chaos.good(found, kills=2), found
    assert found["comparisons"] == 80
    assert found["tally"]["refused"] > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"lost": 1},
        {"duplicated": 1},
        {"same_totals": False},
        {"billed_beyond": 2},
        {"billed_beyond": 4},
        {"maybe_billed": 5},
        {"maybe_billed": 7},
        {"unseen": asdict(Bill(3, 2, 1, not_counted=1, ambiguous=0))},
        {"unseen": asdict(Bill(3, 2, 1, not_counted=0, ambiguous=1))},
    ],
)
def test_planted_losses_are_noticed(wrong):
    fine: dict[str, Any] = {"same_totals": True, "lost": 0, "duplicated": 0, "billed_beyond": 3, "maybe_billed": 6}
    fine["unseen"] = asdict(Bill(3, 2, 1, 0, 0))
    assert chaos.good(fine, kills=1)
    assert not chaos.good(fine, kills=0), "without kills everything unseen is billed"
    assert not chaos.good(fine | wrong, kills=1)
