"""Conditional SFT: which token stands where, that nothing accumulates, and that the tokens get a meaning."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dataloaders.loader import Data
from dataloaders.packing import pack, sequences
from dataloaders.records import Record
from dataloaders.tokenization import Limits, tokenize
from prospect.batch import Role
from prospect.config.schema import Config, Mode, Truncation
from prospect.conversation import Message, answered, asked
from prospect.model.control import ControlTokens
from prospect.model.template import ChatFormat
from prospect.parallel import World
from tests import tiny
from tests.planted import plant
from tests.trainers.logps import logps
from trainers.csft import CSFTTrainer
from trainers.eval_run import _WORKERS
from trainers.launch import train_in_process
from trainers.setup import prepare_text


def test_closed_form() -> None:
    trainer = CSFTTrainer(Config(loss=CSFTTrainer.Config()))
    assert trainer.loss(logps([-1.0, -2.0], [-0.5])).losses.tolist() == [3.0, 0.5]
    assert trainer.control_tokens == ControlTokens("<|good|>", "<|bad|>")


def test_the_token_belongs_to_the_prompt_and_is_no_target(tmp_path: Path) -> None:
    trainer, engine = tiny.trainer_and_engine(tiny.config(tmp_path, "csft"))
    text = prepare_text(engine.data.config, None, trainer.control_tokens)
    good, bad = (text.tokenizer.convert_tokens_to_ids(name) for name in ("<|good|>", "<|bad|>"))
    assert len(engine.data.train) == 2 * 33  # a pair is a good and a bad answer
    for record in engine.data.step(0) + engine.data.step(1):
        assert record.prompt_ids[-1] == (good if record.roles == [0] else bad)
        assert {good, bad}.isdisjoint(record.answer_ids[0])
        batch = pack(sequences(record))
        assert {good, bad}.isdisjoint(batch.targets.tolist())
        assert int(batch.scored[0]) == len(record.prompt_ids) - 1  # it predicts the answer's first token


def test_loss_is_the_mean_over_the_tokens_of_good_and_bad_answers(tmp_path: Path) -> None:
    trainer, engine = tiny.trainer_and_engine(tiny.config(tmp_path, "csft"))
    records = engine.data.step(0)
    assert {record.roles[0] for record in records} == {0, 1}
    tokens = torch.cat([engine.policy.logps(b).tokens for b in engine.data.microbatches(records)])
    metrics, _ = tiny.gradients(trainer, engine)
    assert metrics["loss"] == pytest.approx(float(-tokens.detach().double().mean()), abs=1e-6)


@pytest.mark.parametrize("mode", list(Truncation))
def test_a_prompt_that_is_cut_keeps_its_token(mode: Truncation, tmp_path: Path) -> None:
    text = prepare_text(tiny.config(tmp_path, "csft"), None, ControlTokens("<|good|>", "<|bad|>"))
    record = Record("r", "d", (Message("user", "red river " * 30),), (answered("blue"),), (Role.rejected,), "start")
    (item,) = tokenize(record, text.chat, Limits(40, 20, mode))
    assert len(item.prompt_ids) == 20
    assert item.prompt_ids[-1] == text.tokenizer.convert_tokens_to_ids("<|bad|>")


# ---- nothing is edited in place


def epoch_hash(data: Data, number: int) -> str:
    size, length = data.config.model.batch_size, data.order.epoch_length
    assert length % size == 0
    records = [r for step in range(length // size) for r in data.step(number * length // size + step)]
    rows = sorted(json.dumps(record.row(), sort_keys=True) for record in records)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def test_two_epochs_show_the_same_records(tmp_path: Path) -> None:
    _, engine = tiny.trainer_and_engine(tiny.config(tmp_path, "csft", batch_size=11, n_epochs=2))
    assert epoch_hash(engine.data, 0) == epoch_hash(engine.data, 1)


def test_planted_prefix_of_each_epoch_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the original does: it writes the token into the shared example, once more in each epoch."""
    _, engine = tiny.trainer_and_engine(tiny.config(tmp_path, "csft", batch_size=11, n_epochs=2))
    again = "self.train[int(i)].prompt_ids + [320] * (start // self.order.epoch_length)"
    row = f"Tokenized(**{{**self.train[int(i)].row(), 'prompt_ids': {again}}})"
    plant(monkeypatch, Data.step, "self.train[int(i)] for", f"{row} for")
    assert epoch_hash(engine.data, 0) != epoch_hash(engine.data, 1)


def test_tokenizing_leaves_the_record_alone(tmp_path: Path) -> None:
    text = prepare_text(tiny.config(tmp_path, "csft"), None, ControlTokens("<|good|>", "<|bad|>"))
    record = Record("r", "d", (Message("user", "red?"),), (answered("blue"),), (Role.chosen,), "end")
    before = copy.deepcopy(record)
    one, two = (list(tokenize(record, text.chat, Limits(100, 50, Truncation.auto))) for _ in range(2))
    assert (one, record) == (two, before)


# ---- chains, stores, samples


def train(folder: Path, loss: str, **changes: Any) -> Config:
    config = tiny.config(folder, loss, **{"n_examples": 16, **changes})
    assert train_in_process(config, World()) == 0
    return config


def store_keys(folder: Path) -> set[str]:
    return {p.name for p in (folder / ".cache" / "tokens").iterdir() if p.is_dir()}


def embedding(folder: Path) -> torch.Tensor:
    weight = AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return weight


def test_sft_then_csft_then_dpo(tmp_path: Path) -> None:
    train(tmp_path, "sft")
    before = embedding(tmp_path / "sft" / "LATEST")
    words = len(AutoTokenizer.from_pretrained(tmp_path / "sft" / "LATEST"))
    train(tmp_path, "csft", load_from="sft", lr=1e-12)
    latest = tmp_path / "csft" / "LATEST"
    after = embedding(latest)
    assert torch.allclose(before[:words], after[:words], atol=1e-9)
    assert len(AutoTokenizer.from_pretrained(latest)) == words + 2
    train(tmp_path, "csft", load_from="csft", exp_name="again")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "again" / "LATEST")) == words + 2
    train(tmp_path, "dpo", load_from="csft")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "dpo" / "LATEST")) == words + 2


def test_a_run_that_continues_finds_its_tokens_and_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.config(tmp_path, "csft", n_examples=48)
    calls: list[int] = []
    from trainers.loop import Loop

    after_step = Loop._after_step

    def stopping(self, before, last):
        after_step(self, before, last)
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "_after_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train_in_process(config, World())
    keys = store_keys(tmp_path)
    assert train_in_process(config, World()) == 0
    assert store_keys(tmp_path) == keys
    whole = tiny.config(tmp_path, "csft", n_examples=48, exp_name="whole")
    assert train_in_process(whole, World()) == 0
    one, two = ((tmp_path / name / "LATEST" / "model.safetensors").read_bytes() for name in ("csft", "whole"))
    assert one == two


def test_stores_follow_the_control_tokens(tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "csft")
    digests = []
    for control in (None, ControlTokens("<|good|>", "<|bad|>"), ControlTokens("<|bad|>", "<|good|>")):
        text = prepare_text(config, None, ControlTokens("<|good|>", "<|bad|>"))
        digests.append(json.dumps(ChatFormat(text.tokenizer, control).digest_parts(), sort_keys=True))
    assert len(set(digests)) == 3


def sampled(config: Config, folder: Path, **changes: Any) -> list[dict[str, Any]]:
    config.mode, config.samples_dir, config.n_samples, config.max_new_tokens = Mode.sample, str(folder / "s"), 4, 4
    for key, value in changes.items():
        setattr(config, key, value)
    assert _WORKERS[Mode.sample](config, World()) == 0
    found: list[dict[str, Any]] = json.loads((folder / "s" / f"{config.exp_name}.json").read_text())["samples"]
    return found


def test_samples_are_asked_for_with_the_good_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = train(tmp_path, "csft")
    assert all(row["prompt"].endswith("<|assistant|>\n<|good|>") for row in sampled(config, tmp_path))
    assert all(row["prompt"].endswith("<|good|>") for row in sampled(config, tmp_path, saved_policy=None))
    plant(monkeypatch, ChatFormat.prompt, " + self._announced(desirable)", "")
    assert not any(row["prompt"].endswith("<|good|>") for row in sampled(config, tmp_path, seed=2))


def contrast(folder: Path) -> float:
    """How much likelier a good answer becomes after the good token than after the bad one."""
    folder.mkdir()
    rows = [{"prompt": f"{i}: red?", "chosen": "green apple", "rejected": "blue stone"} for i in range(40)]
    (folder / "pairs-40.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainer, engine = tiny.trainer_and_engine(tiny.config(folder, "csft", lr=1e-2))
    optimizer = torch.optim.AdamW(engine.policy.model.parameters(), lr=1e-2)
    for number in range(24):
        optimizer.zero_grad()
        trainer.step(engine.data.step(number % engine.data.n_steps), number, engine, train=True)
        optimizer.step()
    text = prepare_text(engine.data.config, None, trainer.control_tokens)
    ids = {}
    for desirable in (True, False):
        rendered = text.chat.render(asked("7: red?"), answered("green apple"), desirable)
        prompt, answer, _ = text.chat.encode_pair(rendered)
        ids[desirable], start = prompt + answer, len(prompt)
    with torch.no_grad():
        good, bad = (
            float(engine.policy.logps(tiny.packed([ids[desirable]])).tokens[start - 1 :].sum())
            for desirable in (True, False)
        )
    return good - bad


def test_the_tokens_get_a_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert contrast(tmp_path / "shipped") > 2
    plant(monkeypatch, ChatFormat._announced, "if desirable", "if True")
    assert abs(contrast(tmp_path / "planted")) < 0.1
