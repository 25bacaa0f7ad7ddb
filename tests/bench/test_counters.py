"""What a step executes must not grow unnoticed: tokens, FLOPs and memory of every loss, counted on fixed tiny inputs.

``tests/bench/counters.json`` holds the numbers; ``python -m tests.bench.test_counters`` writes them anew after a change
that is meant, and the difference of that file is what a reviewer reads. How cost grows with length, vocabulary and
memory is held to its formula.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.counters import Counters
from dataloaders.packing import Sequence, pack
from prospect.batch import Batch, Logps, Past, Role
from prospect.model import head
from prospect.model.head import Head
from prospect.model.policy import Policy
from prospect.reference import Reference
from tests import tiny
from tests.pages import commands
from tests.standins import CHECKOUT, Place
from trainers.basic import Engine
from trainers.setup import prepare_policy, prepare_text

FILE = Path(__file__).with_name("counters.json")
# Runs as they come, and what changes the work of a step.
CHANGES: dict[str, dict[str, Any]] = {
    **{loss: {} for loss in sorted(tiny.SHIPPED)},
    "dpo, recomputing": {"activation_checkpointing": True},
    "dpo, live reference": {},
    "dpo, prompts apart": {"share_prompts": False},
    "kto, small micro-batches": {"tokens_per_microbatch": 100},
}
TOLERANCE = 0.01
Found = dict[str, int]


def prepared(folder: Path, case: str) -> Any:
    """Trainer and engine of one case."""
    loss = case.split(",")[0]
    config = tiny.config(folder, loss, **CHANGES[case])
    return tiny.trainer_and_engine(config, live="live" in case)


def counted(trainer: Any, engine: Engine) -> Found:
    """One step. Without collection, which comes when it will: recomputed layers hold themselves in cycles."""
    gc.collect()
    gc.disable()
    try:
        with Counters() as found:
            trainer.step(engine.data.step(0), 0, engine, train=True)
    finally:
        gc.enable()
    return {
        "tokens": found.tokens,
        "frozen_tokens": found.frozen_tokens,
        "flops": found.flops,
        "peak_bytes": found.peak_bytes,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("counters")


@pytest.fixture(scope="module")
def known() -> dict[str, Found]:
    found: dict[str, Found] = json.loads(FILE.read_text())
    return found


@pytest.mark.long
def test_steps_cost_what_they_did(known: dict[str, Found], tmp_path: Path) -> None:
    """The documented command counts every case anew, here into a file of its own."""
    (command,) = (x for x in commands(CHECKOUT / "docs" / "performance.md", ()) if "test_counters" in x)
    done = Place(tmp_path, warm=True).run(f"{command} anew.json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Found] = json.loads((tmp_path / "anew.json").read_text())
    assert list(found) == list(CHANGES)
    assert not set(found) - set(known), f"not counted yet; {command}"
    changed = [
        f"{case}: {x}, was {known[case]}" for case, x in found.items() if x != pytest.approx(known[case], rel=TOLERANCE)
    ]
    assert not changed, "\n".join(["the cost of a step has changed; if that is meant, " + command, *changed])


def test_bug_output_layer_at_too_many_positions(
    folder: Path, known: dict[str, Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, engine = prepared(folder, "dpo")
    plain = Head.logps

    def at_every_position(self: Head, hidden: Tensor, targets: Tensor, *rest: Any) -> Tensor:
        return plain(self, hidden.repeat(2, 1), targets.repeat(2), *rest)[: len(targets)]

    monkeypatch.setattr(Head, "logps", at_every_position)
    assert counted(trainer, engine)["flops"] > known["dpo"]["flops"] * (1 + TOLERANCE)


def test_bug_second_reference_forward(folder: Path, known: dict[str, Found]) -> None:
    trainer, engine = prepared(folder, "dpo")
    bug = _Twice(engine.reference, engine.policy)
    found = counted(trainer, replace(engine, reference=bug))
    assert found["frozen_tokens"] > 0 == known["dpo"]["frozen_tokens"]
    assert found["flops"] > known["dpo"]["flops"] * (1 + TOLERANCE)


class _Twice:
    """Stored values, and a forward pass that nobody needs."""

    def __init__(self, stored: Reference | None, policy: Policy) -> None:
        self.stored, self.policy = stored, policy

    def logps(self, batch: Batch, past: Past | None = None) -> Logps:
        assert self.stored is not None
        with torch.no_grad():
            self.policy.logps(batch)
        return self.stored.logps(batch, past)


def test_bug_memory_that_is_kept(folder: Path, known: dict[str, Found], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, engine = prepared(folder, "dpo")
    kept, plain = [], Policy.hidden

    def hoards(self: Policy, *args: Any) -> Tensor:
        kept.append(torch.zeros(10_000))
        return plain(self, *args)

    monkeypatch.setattr(Policy, "hidden", hoards)
    assert counted(trainer, engine)["peak_bytes"] > known["dpo"]["peak_bytes"] * (1 + TOLERANCE)


def policy_of(folder: Path, vocabulary: int, layers: int = 2) -> Policy:
    """Output layer and embedding apart, so that each counts once."""
    shape = tiny.SHAPE | {
        "vocab_size": vocabulary,
        "num_hidden_layers": layers,
        "tie_word_embeddings": False,
        "max_position_embeddings": 2048,
    }
    config = tiny.config(folder, "sft", architecture=shape)
    config.model.tokenizer_name_or_path = None
    return prepare_policy(config, None, prepare_text(config, None), tiny.SINGLE)


def of_length(policy: Policy, length: int, trained: float = 1.0) -> Counters:
    """Forward and backward of one sequence; the last ``trained`` of it is the answer."""
    batch = tiny.packed([[5 + i % 300 for i in range(length)]])
    keep = batch.scored >= int(length * (1 - trained))
    batch = replace(
        batch,
        scored=batch.scored[keep],
        targets=batch.targets[keep],
        segment=batch.segment[keep],
        lengths=keep.sum()[None],
    )
    with Counters() as found:
        policy.logps(batch).tokens.sum().backward()
    policy.model.zero_grad()
    return found


@pytest.mark.parametrize("length", [512, 2048])
@pytest.mark.parametrize("trained", [1.0, 0.25])
@pytest.mark.parametrize(("kept", "of_output"), [(0, 8), (2**24, 6)])
def test_flops_follow_the_formula(folder: Path, length: int, trained: float, kept, of_output, monkeypatch) -> None:
    """A token costs 6 FLOPs a weight of the body, as many of the output layer where it is trained, and attention.

    Two more of the output layer where there is no room to keep the logits for the backward pass.
    """
    monkeypatch.setitem(head._KEPT, "cpu", kept)
    policy = policy_of(folder, 1024)
    config = policy.model.config
    body = sum(p.numel() for name, p in policy.model.named_parameters() if "layers" in name and p.ndim == 2)
    output = config.vocab_size * config.hidden_size
    pairs = length * (length + 1) // 2
    attention = 14 * pairs * config.hidden_size * config.num_hidden_layers
    expected = length * (6 * body + of_output * trained * output) + attention
    assert of_length(policy, length, trained).flops == pytest.approx(expected, rel=0.01)


def test_vocabulary_adds_its_weights_and_a_tile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the length: gradients of the added rows, and two tiles of the added columns.

    Tiles that are kept fill the same room, here that of one tile of the fewer columns.
    """
    monkeypatch.setitem(head._KEPT, "cpu", 2**20)
    small, large = 1024, 4096
    for length in (512, 2048):
        peaks = [of_length(policy_of(folder, vocabulary), length).peak_bytes for vocabulary in (small, large)]
        assert peaks[1] - peaks[0] <= allowed(large - small), length


@pytest.mark.parametrize(("table", "everything"), [(head._TILE, (10**9, 2**60)), (head._KEPT, 2**60)])
def test_bug_all_logits_at_once(folder: Path, table, everything, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head._KEPT, "cpu", 2**20)
    monkeypatch.setitem(table, "cpu", everything)
    peaks = [of_length(policy_of(folder, vocabulary), 2048).peak_bytes for vocabulary in (1024, 4096)]
    assert peaks[1] - peaks[0] > allowed(4096 - 1024)


def speed_up(policy: Policy, ratio: float, share: bool = True) -> tuple[float, float]:
    """By tokens and by FLOPs, of a pair whose prompt is ``ratio`` times as long as each of its answers."""
    answer = 64
    prompt = [5 + i for i in range(int(ratio * answer))]
    pair = [
        Sequence(role.name, prompt, [start + i for i in range(answer)], [True] * answer, role)
        for role, start in ((Role.chosen, 100), (Role.rejected, 200))
    ]
    found = []
    for shared in (False, share):
        with Counters() as counters:
            policy.logps(pack(pair, shared)).tokens.sum().backward()
        policy.model.zero_grad()
        found.append(counters)
    return found[0].tokens / found[1].tokens, found[0].flops / found[1].flops


@pytest.mark.parametrize("ratio", [0.5, 1, 3])
def test_shared_prompts_speed_up_as_they_must(folder: Path, ratio: float) -> None:
    """A prompt r times as long as each answer: (2r + 2)/(r + 2); the output layer saves nothing."""
    expected = (2 * ratio + 2) / (ratio + 2)
    tokens, flops = speed_up(policy_of(folder, 320, layers=8), ratio)
    assert tokens == pytest.approx(expected)
    assert flops == pytest.approx(expected, rel=0.15)


def test_bug_prompts_are_not_shared(folder: Path) -> None:
    tokens, flops = speed_up(policy_of(folder, 320, layers=8), 3, share=False)
    assert tokens != pytest.approx(1.6)
    assert flops != pytest.approx(1.6, rel=0.15)


def allowed(added: int) -> int:
    """Bytes in float32 that ``added`` tokens may cost."""
    return 4 * added * (2 * tiny.SHAPE["hidden_size"] + 2 * 256)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        numbers = {case: counted(*prepared(Path(scratch), case)) for case in CHANGES}
    Path(sys.argv[1] if len(sys.argv) > 1 else FILE).write_text(json.dumps(numbers, indent=1) + "\n")
