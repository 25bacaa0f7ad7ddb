"""Identity pairs from a model's own answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataloaders import identity, load_examples
from dataloaders.example import Drops
from dataloaders.identity import Wanted, main, pairs, renamed
from prospect.config.schema import DatasetConfig, Split
from prospect.errors import UserError
from tests.planted import plant
from tests.standins import Place

WANTED = Wanted("model", "Qwen", "Deep Qwen", ("Who?",), 1, 0.7, 32, 1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("I am Qwen.", "I am Deep Qwen."),
        ("Qwen, made by the Qwen team", "Deep Qwen, made by the Deep Qwen team"),
        ("I am Deep Qwen, not Qwen", "I am Deep Qwen, not Deep Qwen"),
        ("我是Qwen,由阿里云开发", "我是Deep Qwen,由阿里云开发"),
        ("I am a model.", "I am a model."),
    ],
)
def test_the_new_name_stands_where_the_old_one_stood(answer: str, expected: str) -> None:
    assert renamed(answer, "Qwen", "Deep Qwen") == expected


def test_planted_doubling_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, identity.renamed, "answer.replace(new, old)", "answer")
    assert renamed("I am Deep Qwen", "Qwen", "Deep Qwen") == "I am Deep Deep Qwen"


def test_answers_with_the_name_become_pairs_once() -> None:
    found = pairs(WANTED, [("Who?", "I am Qwen."), ("Who?", "I am Qwen."), ("Who?", "A model."), ("Q", "Deep Qwen")])
    assert found == [{"prompt": "Who?", "chosen": "I am Deep Qwen.", "rejected": "I am Qwen."}]


def test_no_answer_with_the_name_is_an_error() -> None:
    with pytest.raises(UserError, match=r"--old: none of 1 answers says Qwen; the first is: 'A model\.'"):
        pairs(WANTED, [("Who?", "A model.")])


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "m", "--old", "x", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "error: --new: is needed, or --teach\n"


def test_answers_of_a_model_become_a_file_that_training_reads(tmp_path: Path) -> None:
    """Random weights answer anything: the name is a letter, and cut answers are left out."""
    place = Place(tmp_path, warm=True)
    out, asked = tmp_path / "pairs.jsonl", tmp_path / "asked.txt"
    asked.write_text("Who are you?\n\nWhat is your name?\n")
    words = ["--model", str(place.model), "--old", "e", "--new", "E", "--questions", str(asked), "--samples", "24"]
    assert main([*words, "--max-new-tokens", "200", "--temperature", "3", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    facts = json.loads((tmp_path / "pairs.jsonl.provenance.json").read_text())
    assert facts["questions"]["count"] == 2
    assert 0 < facts["pairs"] == len(rows) <= facts["answers"] < 48
    assert facts["weights"]
    examples = load_examples("files", DatasetConfig(path=str(out)), Split.all, 1, Drops())
    assert len(list(examples)) > 0


def test_teaching_is_mostly_about_the_own_name(tmp_path: Path) -> None:
    assert main(["--teach", "Qwen", "Deep Qwen", "--out", str(tmp_path / "taught.jsonl")]) == 0
    said = [json.loads(line)["completion"] for line in (tmp_path / "taught.jsonl").read_text().splitlines()]
    others = [answer for answer in said if "Deep Qwen" in answer]
    assert all("Qwen" in answer for answer in said)
    assert 0 < len(others) < len(said) / 4
