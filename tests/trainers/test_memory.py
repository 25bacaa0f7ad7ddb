"""What peak memory depends on: the token budget and the weights, neither the batch size nor the vocabulary's tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from prospect import updates
from prospect.model import head
from prospect.updates import Updates
from tests import tiny
from tests.memory import LiveBytes
from tests.planted import plant
from trainers.basic import BasicTrainer

TILE = 2**17  # bytes
WORDS = " ".join(tiny.WORDS)  # answers of one length: every micro-batch is as large as the budget lets it be


def peak(folder: Path, loss: str, **changes: Any) -> tuple[int, int]:
    """Of the second optimizer step, weights and the optimizer's state included, and the number of the weights."""
    rows = [{"prompt": f"{i}: {WORDS}?", "chosen": WORDS, "rejected": f"{WORDS} {WORDS}"} for i in range(100, 180)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs-80.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tiny.config(folder, loss, 80, **changes)
    trainer, engine = tiny.trainer_and_engine(config)
    weights = engine.policy.parameters()
    for p in weights:
        p.grad = None
    made = Updates(config, weights)
    with LiveBytes(weights) as live:
        for number in range(2):
            live.peak = 0
            made.begin(number)
            tally = trainer.step(engine.data.step(number), number, engine, train=True)
            made.clip(tally.read(made.norms()))
            made.step()
    size = sum(p.numel() for p in weights)
    return live.peak + 4 * size, size


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head._TILE, "cpu", (256, TILE))
    monkeypatch.setitem(head._KEPT, "cpu", TILE)
    monkeypatch.setattr(updates, "_PIECE", 4096)


BUDGET = {"tokens_per_microbatch": 150, "architecture": tiny.SHAPE | {"hidden_size": 96, "intermediate_size": 256}}


@pytest.mark.long
@pytest.mark.parametrize("loss", ["dpo", "kto-simple"])
def test_batch_size_does_not_matter(loss: str, tmp_path: Path) -> None:
    small, large = (peak(tmp_path, loss, batch_size=n, **BUDGET)[0] for n in (4, 32))
    assert large <= 1.05 * small


@pytest.mark.long
def test_planted_activations_that_are_held_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, BasicTrainer._pass, ".backward()", ".backward(retain_graph=True); self.__dict__[batch] = policy")
    small, large = (peak(tmp_path, "dpo", batch_size=n, **BUDGET)[0] for n in (4, 32))
    assert large > 1.5 * small


def growth(folder: Path) -> float:
    """Bytes that four times the vocabulary takes, beyond 16 for each weight more."""
    shape = tiny.SHAPE | {"tie_word_embeddings": False, "hidden_size": 16, "num_attention_heads": 2}
    settings = {"tokens_per_microbatch": 10**6, "batch_size": 32}
    (small, n), (large, m) = (
        peak(folder / str(v), "dpo", architecture=shape | {"vocab_size": v}, **settings) for v in (1024, 4096)
    )
    return large - small - 16 * (m - n)


@pytest.mark.long
def test_vocabulary_costs_its_weights_and_a_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert growth(tmp_path / "ours") <= 2 * TILE
    plant(monkeypatch, head.tile_size, "max(1, min(most, size // (4 * vocabulary)))", "10**6")
    assert growth(tmp_path / "planted") > 10 * TILE


def test_bfloat16_weights_take_half(tmp_path: Path) -> None:
    shape = tiny.SHAPE | {"vocab_size": 4096, "hidden_size": 64}
    wide, narrow = (
        peak(tmp_path, "sft", architecture=shape, batch_size=4, weights_dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    assert narrow[0] - 2 * narrow[1] < 0.7 * wide[0]  # peak counts 4 bytes for weights that take 2


def test_the_counter_sees_what_is_alive() -> None:
    with LiveBytes() as live:
        first = torch.ones(1000)
        second = first * 2
        assert live.now == 8000
        first.mul_(2)
        second.view(10, 100)
        del first
        assert live.now == 4000
    assert live.peak == 8000
