from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.compare import Disagreement, Interval, Leg, agree, table

OWN = Leg("prospect", 1000.0, 10.0, 5.0, 0.0, 1000.0, 5000, 1.0, 0.693, 2.0)
PEER = Leg("trl", 250.0, 40.0, 20.0, 0.0, 2000.0, 5000, 0.0, 0.693, 2.0)


def test_equal_work_agrees() -> None:
    agree(OWN, replace(PEER, loss=0.6935, grad_norm=2.001))


@pytest.mark.parametrize("wrong", [{"tok": 5001}, {"loss": 0.695}, {"grad_norm": 2.01}])
def test_different_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Disagreement, match={"tok": "tokens", "loss": "loss", "grad_norm": "norm"}[next(iter(wrong))]):
        agree(OWN, replace(PEER, **wrong))


def test_void_when_others_ran_or_processor_time_is_off() -> None:
    others = [OWN, OWN, OWN]
    assert not OWN.is_void(others)
    assert replace(OWN, foreign=0.2).is_void(others)
    assert replace(OWN, cpu=11.5).is_void(others)
    assert not replace(OWN, cpu=10.9).is_void(others)


def test_interval_of_equal_ratios_is_a_point() -> None:
    assert Interval.of([4.0] * 5) == Interval(4.0, 4.0, 4.0)


def test_interval_holds_the_median() -> None:
    found = Interval.of([3.0, 4.0, 5.0, 4.5, 3.5])
    assert found.low < found.middle == 4.0 < found.high


def test_disturbed_pairs_give_no_wall_ratio() -> None:
    noisy = (replace(OWN, foreign=0.5, tok_s=5.0), PEER)
    assert "tokens/s, 2 clean pairs: 4.00 [4.00, 4.00]" in table([(OWN, PEER), noisy, (OWN, PEER)])
    assert "no clean pair" in table([noisy])
