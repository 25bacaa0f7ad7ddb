"""The output layer's kernels: the fastest of those that compute the same, by a made-up clock; kept with the run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prospect.checkpoint.state import Position
from prospect.config.schema import Config, HeadKernel
from prospect.errors import MachineError, UserError
from prospect.model import head
from prospect.model.between import Between
from prospect.model.policy import Policy
from prospect.parallel import World
from tests import tiny
from tests.planted import plant
from trainers import kernels
from trainers.kernels import fastest, settle_kernels
from trainers.launch import train_in_process


class MadeUp:
    """A clock on which the kernels take as long as they are told to."""

    def __init__(self, **seconds: float) -> None:
        self.told, self.asked = seconds, list[str]()

    def seconds(self, run: Any) -> float:
        self.asked.append(str(run.args[1].kernel))
        return self.told[self.asked[-1]]


@pytest.fixture(autouse=True)
def all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that compute what the plain operations do, under both names."""
    monkeypatch.setattr(kernels, "find_spec", lambda name: name)
    monkeypatch.setattr(head, "Compiled", Between)
    monkeypatch.setattr(kernels, "_POSITIONS", 64)
    standing_in(monkeypatch, 1.0)


def standing_in(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    def cut(hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
        return factor * (hidden @ weight.T).float().log_softmax(-1).gather(1, targets[:, None]).squeeze(1)

    monkeypatch.setattr(head, "_cut_logps", cut)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Config, Policy]:
    config = tiny.config(tmp_path, "sft")
    policy = tiny.trainer_and_engine(config)[1].policy
    policy.autocast = torch.bfloat16
    for p in policy.parameters():
        p.grad = None
    return config, policy


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        ({"torch": 3.0, "compiled": 1.0, "cut": 2.0}, HeadKernel.compiled),
        ({"torch": 3.0, "compiled": 4.0, "cut": 2.0}, HeadKernel.cut),
        ({"torch": 1.0, "compiled": 4.0, "cut": 2.0}, HeadKernel.torch),
    ],
)
def test_the_fastest_is_taken_and_the_times_are_said(made, seconds, found, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "prospect"):
        assert fastest(made[1], MadeUp(**seconds), on_gpu=True) is found
    assert f"output layer: {found} (milliseconds a 64 tokens: torch" in caplog.text
    assert all(p.grad is None for p in made[1].parameters())


def test_what_computes_something_else_is_not_taken(made, monkeypatch: pytest.MonkeyPatch) -> None:
    standing_in(monkeypatch, 1.05)
    clock = MadeUp(torch=3.0, compiled=2.0, cut=1.0)
    assert fastest(made[1], clock, on_gpu=True) is HeadKernel.compiled
    assert "cut" not in clock.asked
    plant(monkeypatch, fastest, "off > allowed(dtype)", "False")
    assert fastest(made[1], clock, on_gpu=True) is HeadKernel.cut


def test_what_does_not_run_is_not_taken(made, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def broken(*arguments: object) -> Tensor:
        raise RuntimeError("no such instruction\nand a page more")

    monkeypatch.setattr(head, "_cut_logps", broken)
    with caplog.at_level(logging.WARNING, "prospect"):
        assert fastest(made[1], MadeUp(torch=3.0, compiled=2.0), on_gpu=True) is HeadKernel.compiled
    assert "output layer: cut does not run here (no such instruction)" in caplog.text


def test_a_run_keeps_what_it_has_found(made) -> None:
    config, policy = made
    position, clock = Position(), MadeUp(torch=2.0, compiled=3.0)  # on a CPU there is no third
    settle_kernels(config, policy, position, World(), clock)
    assert position.head_kernel == "torch"
    position.head_kernel = "compiled"
    settle_kernels(config, policy, position, World(), clock)
    assert policy.head.kernel is HeadKernel.compiled
    assert len(clock.asked) == 2  # a run that continues does not try again


def set_to(kernel: HeadKernel) -> Callable[[Config, Policy], None]:
    def settle(config: Config, policy: Policy) -> None:
        config.model.head_kernel = kernel
        settle_kernels(config, policy, Position(), World())

    return settle


def test_what_is_configured_is_taken_or_refused(made, monkeypatch: pytest.MonkeyPatch) -> None:
    config, policy = made
    set_to(HeadKernel.compiled)(config, policy)
    assert policy.head.kernel is HeadKernel.compiled
    with pytest.raises(MachineError, match=r"model\.head_kernel: cut runs on a GPU only"):
        set_to(HeadKernel.cut)(config, policy)
    policy.autocast = None
    with pytest.raises(UserError, match="cut computes in bfloat16 only"):
        set_to(HeadKernel.cut)(config, policy)
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    why = kernels.unfit(HeadKernel.compiled, policy.head, torch.bfloat16, on_gpu=True)
    assert str(why) == "model.head_kernel: compiled needs triton, which is not installed"


def test_a_reward_model_has_none_to_choose(tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "reward")
    _, engine = tiny.trainer_and_engine(config)
    position = Position()
    settle_kernels(config, engine.policy, position, World(), MadeUp())
    assert position.head_kernel is None


def test_a_run_trains_with_compiled_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head._KEPT, "cpu", 0)  # what is kept is rounded otherwise
    losses = []
    for kernel in (HeadKernel.torch, HeadKernel.compiled):
        config = tiny.config(tmp_path / kernel, "dpo", 20, head_kernel=kernel, n_examples=8)
        assert train_in_process(config, World()) == 0
        (metrics,) = tmp_path.glob(f"{kernel}/*/metrics.jsonl")
        losses.append(metrics.read_text().splitlines()[-1].split("tokens_per_second")[0])
    assert losses[0] == losses[1]
