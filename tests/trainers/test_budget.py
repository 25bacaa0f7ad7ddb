"""The token budget: a search over a memory that is made up, and a run that keeps what it has found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from prospect.batch import Batch, Outputs
from prospect.checkpoint.state import Position
from prospect.errors import MachineError
from prospect.model.policy import Policy
from prospect.parallel import World
from tests import tiny
from tests.planted import plant
from trainers import budget
from trainers.budget import attempt, search, settled
from trainers.launch import train_in_process

LONGEST = 100


@dataclass
class MadeUp:
    """A memory whose peak is ``fixed`` and ``each`` a token, and ``hidden`` beyond a size."""

    size: int
    fixed: int = 1000
    each: float = 2.0
    hidden: int = 0
    tried: list[int] = field(default_factory=list)

    def run(self, tokens: int) -> None:
        self.tried.append(tokens)

    def room(self) -> int:
        return self.size

    def peak(self, run: Callable[[], None]) -> int:
        run()
        needed = int(self.fixed + self.each * self.tried[-1]) + self.hidden * (self.tried[-1] > 2 * LONGEST)
        if needed > self.size:
            raise torch.OutOfMemoryError("made up")
        return needed


def test_the_line_is_followed_to_the_room_and_proved() -> None:
    memory = MadeUp(20_000)
    found = search(memory, memory.run, LONGEST, reserve=4000)
    assert found == (20_000 * 0.9 - 4000 - 1000) // 2 // 256 * 256
    assert memory.tried == [LONGEST, 2 * LONGEST, found]


def test_where_the_line_promises_too_much_less_is_taken() -> None:
    memory = MadeUp(20_000, hidden=8000)
    found = search(memory, memory.run, LONGEST, reserve=0)
    assert 0.7 * (10_000 / 2) < found <= 9000 / 2
    assert memory.tried[-1] == found


def test_planted_missing_proof_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, search, "if needed is not None and needed <= room", "if True")
    memory = MadeUp(20_000, hidden=8000)
    assert memory.fixed + 2 * search(memory, memory.run, LONGEST, reserve=0) + 8000 > 18_000


@pytest.mark.parametrize(("size", "found"), [(1400, 100), (10**9, 2**17)])
def test_one_sequence_at_least_and_no_more_than_helps(size: int, found: int) -> None:
    memory = MadeUp(size)
    assert search(memory, memory.run, LONGEST, reserve=0) == found


def test_a_sequence_that_does_not_fit_is_one_line() -> None:
    memory = MadeUp(1100)
    with pytest.raises(
        MachineError, match=r"model\.max_length: one sequence of 100 tokens and the optimizer do not fit"
    ):
        search(memory, memory.run, LONGEST, reserve=0)


@pytest.mark.parametrize("loss", ["sft", "ppo", "reward"])
def test_a_try_computes_so_many_tokens_and_leaves_nothing(loss: str, tmp_path: Path, monkeypatch: Any) -> None:
    _, engine = tiny.trainer_and_engine(tiny.config(tmp_path, loss))
    seen: list[int] = []
    outputs = type(engine.policy).outputs

    def counted(self: Policy, batch: Batch) -> Outputs:
        seen.append(batch.bounds[-1])
        return outputs(self, batch)

    monkeypatch.setattr(type(engine.policy), "outputs", counted)
    attempt(engine.policy, 160, 400)
    assert seen == [400]
    assert all(p.grad is None for p in engine.policy.parameters())


def test_a_run_keeps_what_it_has_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MadeUp(30_000)
    config = tiny.config(tmp_path, "sft", 20, tokens_per_microbatch=None)
    _, engine = tiny.trainer_and_engine(config)
    position = Position()

    def cut() -> Any:
        return settled(config, engine.data, engine.policy, position, World(), memory).config.model.tokens_per_microbatch

    monkeypatch.setattr(budget, "attempt", lambda policy, longest, tokens: memory.run(tokens))
    monkeypatch.setattr(type(engine.policy), "parameters", lambda self: [])
    first, tries = cut(), len(memory.tried)
    assert first == position.tokens_per_microbatch != 1536
    assert cut() == first
    assert len(memory.tried) == tries  # a run that continues does not try again
    config.model.tokens_per_microbatch = 77
    assert settled(config, engine.data, engine.policy, position, World(), memory) is engine.data


def test_on_a_cpu_it_is_fixed(tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "sft", 20, tokens_per_microbatch=None, n_examples=8)
    assert config.model.budget == 1536
    assert train_in_process(config, World()) == 0
    (stored,) = (tmp_path / "sft" / "checkpoints").glob("step-*/position.json")
    assert json.loads(stored.read_text())["tokens_per_microbatch"] is None
