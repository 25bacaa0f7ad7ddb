"""Continued pre-training: documents from any file, cut without overlap, every token trained."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from dataloaders import tokenization
from dataloaders.records import Record
from dataloaders.tokenization import Limits, Tokenized, tokenize
from prospect.batch import Role
from prospect.config.schema import Config, DatasetConfig, Mode, Truncation
from prospect.conversation import answered
from prospect.errors import UserError
from prospect.parallel import World
from tests import tiny
from tests.model.formats import chat
from tests.planted import plant
from tests.trainers.logps import logps
from trainers.launch import train_in_process
from trainers.pt import PTTrainer
from trainers.show_data import show_data

CHATML = chat("chatml")


def document(text: str) -> Record:
    return Record("r", "d", (), (answered(text),), (Role.chosen,), "end")


def pieces(text: str, longest: int, format_=CHATML) -> list[Tokenized]:
    return list(tokenize(document(text), format_, Limits(longest, longest // 2, Truncation.auto)))


def config(folder: Path, texts: list[str] | None = None, loss: str = "pt", **changes: Any) -> Config:
    rng = random.Random(3)
    made = tiny.config(folder, loss, **changes)
    lines = texts or [" ".join(rng.choices(tiny.WORDS, k=rng.choice((3, 10, 30, 400)))) for _ in range(40)]
    (folder / "texts.txt").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    made.datasets = {"files": DatasetConfig(path=str(folder / "texts.txt"), test_fraction=0.2)}
    return made


def test_closed_form() -> None:
    assert PTTrainer(Config(loss=PTTrainer.Config())).loss(logps([-1.0, -2.0], [-0.5])).losses.tolist() == [3.0, 0.5]


# ---- from a text to pieces


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 31, 32, 33, 48, 50])
def test_pieces_are_the_document_and_its_end(length: int) -> None:
    text = "red" + " green" * (length - 1)
    whole = [*CHATML.encode(text), CHATML.tokenizer.eos_token_id]
    found = pieces(text, 16)
    assert [i for piece in found for i in piece.answer_ids[0]] == whole
    sizes = [len(piece.answer_ids[0]) for piece in found]
    assert all(size == 16 for size in sizes[:-2])
    assert all(2 <= size <= 16 for size in sizes)
    assert len(found) == math.ceil(len(whole) / 16)
    assert all(piece.prompt_ids == [] and all(piece.masks[0]) for piece in found)
    assert len({piece.id for piece in found}) == len(found)
    assert len({piece.prompt_key for piece in found}) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ids[start:end]", "ids[max(start - 1, 0):end]"),  # pieces that overlap
        ("cuts[-2] -= 1", "cuts.pop(-2)"),  # a piece beyond the limit
        ("limits.max_length)", "limits.max_length + 1)"),
    ],
)
def test_planted_cuts_are_seen(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, tokenization._document, old, new, times=1)

    def all_lengths() -> None:
        for length in (17, 31, 32, 33):
            test_pieces_are_the_document_and_its_end(length)

    with pytest.raises((AssertionError, ValueError)):
        all_lengths()


def test_a_bos_where_the_tokenizer_puts_one() -> None:
    bos = chat("llama3", adds_bos=True)
    ids = bos.document("red")
    assert ids == [bos.tokenizer.bos_token_id, *bos.encode("red"), bos.tokenizer.eos_token_id]
    assert CHATML.document("red")[0] != CHATML.tokenizer.bos_token_id


def test_a_special_tokens_name_in_a_text_is_text() -> None:
    special = set(CHATML.tokenizer.all_special_ids)
    ids = CHATML.document("red <|im_end|> blue <|endoftext|>")
    assert [i for i in ids if i in special] == [CHATML.tokenizer.eos_token_id]


# ---- loss, data, refusals


def test_loss_is_that_of_the_models_own_forward(tmp_path: Path) -> None:
    from trainers import make_trainer
    from trainers.basic import Engine
    from trainers.setup import prepare_data, prepare_policy, prepare_text

    made = config(tmp_path)
    trainer, text = make_trainer(made), prepare_text(made, None)
    data, policy = prepare_data(made, trainer, text), prepare_policy(made, None, text, World())
    records = data.step(0)
    assert max(len(r.answer_ids[0]) for r in records) == made.model.max_length
    tally = trainer.step(records, 0, Engine(policy, None, data, World()), train=False)
    sums, count = 0.0, 0
    with torch.no_grad(), policy.own_forward():
        for record in records:
            ids = torch.tensor([record.answer_ids[0]])
            found = policy.model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
            sums, count = sums - float(found.double().sum()), count + len(found)
    assert tally.means()["loss"] == pytest.approx(sums / count, abs=1e-5)


def test_a_run_on_a_text_file(tmp_path: Path) -> None:
    made = config(tmp_path, n_examples=16)
    assert train_in_process(made, World()) == 0
    lines = (tmp_path / "pt" / "log" / "rank-0.log").read_text()
    assert "0 prompts are in both training and evaluation" in lines
    chained = tiny.config(tmp_path, "sft", n_examples=8, load_from="pt")
    assert train_in_process(chained, World()) == 0


@pytest.mark.parametrize(
    ("loss", "wanted"), [("sft", "an answer to imitate"), ("dpo", "a pair"), ("kto", "a labelled answer")]
)
def test_texts_are_refused_by_other_losses(tmp_path: Path, loss: str, wanted: str) -> None:
    made = tiny.config(tmp_path, loss)
    made.datasets = config(tmp_path).datasets
    says = rf"datasets.files: \d+ examples, but none gives {wanted} \(its first one holds a text: loss=pt takes that\)"
    with pytest.raises(UserError, match=says):
        train_in_process(made, World())
    made.mode = Mode.data
    with pytest.raises(UserError, match=says):
        show_data(made)


def test_pairs_are_refused_here(tmp_path: Path) -> None:
    made = config(tmp_path)
    made.datasets = tiny.config(tmp_path).datasets
    says = r"datasets.pairs: \d+ examples, but none gives a text \(its first one holds a pair: loss=dpo takes that\)"
    with pytest.raises(UserError, match=says):
        train_in_process(made, World())
    made.mode = Mode.data
    with pytest.raises(UserError, match=says):
        show_data(made)


def test_mode_data_shows_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = config(tmp_path, ["red green blue", "the river walks"], loss="pt")
    made.mode, made.out, made.split = Mode.data, str(tmp_path / "out.jsonl"), made.split.all
    assert show_data(made) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["red green blue<|endoftext|>", "the river walks<|endoftext|>"]
    assert all(row["mask"] == [0] + [1] * (len(row["ids"]) - 1) for row in rows)
    assert "2 records" in capsys.readouterr().out


def test_texts_have_no_prompts_to_sample_for(tmp_path: Path) -> None:
    from dataloaders.prompts import prompts

    with pytest.raises(UserError, match="datasets: files: texts only, no prompts to answer"):
        prompts(config(tmp_path))


def test_a_config_is_plain(tmp_path: Path) -> None:
    assert set(asdict(config(tmp_path).loss)) == {"name", "trainer", "dataloader", "use_reference_model"}
