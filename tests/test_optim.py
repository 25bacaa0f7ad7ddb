"""Optimizers and schedules by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from prospect.config.schema import Config
from prospect.errors import UserError
from prospect.optim import make_optimizer, make_schedule


def optimizer(**changes: Any) -> torch.optim.Optimizer:
    return make_optimizer(Config(**changes), [torch.nn.Parameter(torch.ones(3))])


def test_adamw_is_fused_and_decays_nothing_unless_asked() -> None:
    made = optimizer(lr=0.1)
    assert isinstance(made, torch.optim.AdamW)
    assert (made.defaults["lr"], made.defaults["fused"], made.defaults["weight_decay"]) == (0.1, True, 0.0)
    assert optimizer(optimizer_args={"weight_decay": 0.1}).defaults["weight_decay"] == 0.1


@pytest.mark.parametrize("name", ["RMSprop", "SGD", "Adam", "Adafactor", "Adagrad"])
def test_any_of_torchs_optimizers_makes_a_step(name: str) -> None:
    made = optimizer(optimizer=name)
    (p,) = made.param_groups[0]["params"]
    p.grad = torch.ones(3)
    made.step()
    assert (p < 1).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adamw"}, r"optimizer: neither torch nor bitsandbytes has `adamw` \(did you mean `AdamW`\?\)"),
        ({"optimizer": "Optimizer"}, "optimizer: neither torch nor bitsandbytes has `Optimizer`"),
        (
            {"optimizer_args": {"betass": [0.9, 0.99]}},
            r"optimizer_args.betass: AdamW does not take it \(did you mean `betas`",
        ),
        ({"optimizer": "RMSprop", "optimizer_args": {"betas": [0.9, 0.99]}}, "RMSprop does not take it"),
    ],
)
def test_wrong_names_are_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        optimizer(**changes)


def rates(steps: int, **changes: Any) -> list[float]:
    config = Config(lr=1.0, **changes)
    made = make_optimizer(config, [torch.nn.Parameter(torch.ones(1))])
    schedule = make_schedule(config, made, steps)
    found = []
    for _ in range(steps):
        found.append(float(schedule.get_last_lr()[0]))
        made.step()
        schedule.step()
    return found


def test_linear_after_a_tenth_of_warm_up() -> None:
    assert rates(20) == pytest.approx([0, 0.5, *[(20 - s) / 18 for s in range(2, 20)]])


def test_steps_of_warm_up_win_over_their_share() -> None:
    constant = {"lr_schedule": "constant_with_warmup", "warmup": 0.5}
    assert rates(8, warmup_steps=2, **constant) == pytest.approx([0, 0.5, 1, 1, 1, 1, 1, 1])
    assert rates(8, warmup_steps=0, **constant) == [1] * 8
    assert rates(8, **constant) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1])


def test_a_schedule_takes_its_arguments() -> None:
    found = rates(4, lr_schedule="cosine_with_min_lr", lr_schedule_args={"min_lr": 0.5}, warmup=0.0)
    assert found[0] == 1
    assert min(found) > 0.5
