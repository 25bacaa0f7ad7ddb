"""``mode=data``: the rendered text, what of it is trained, and what of the rows is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prospect.config.schema import Config, DatasetConfig, Mode, Split, TrainOn
from prospect.errors import UserError
from tests import tiny
from tests.model.formats import TEMPLATES
from trainers.show_data import show_data


def shown(
    folder: Path, rows: list[dict[str, Any]], loss: str = "sft", template: str = "chatml"
) -> list[dict[str, Any]]:
    """What ``mode=data`` writes of these rows."""
    made = config(folder, rows, loss, template)
    assert show_data(made) == 0
    return [json.loads(line) for line in Path(str(made.out)).read_text().splitlines()]


def config(folder: Path, rows: list[dict[str, Any]], loss: str, template: str) -> Config:
    made = tiny.config(folder, loss, mode=Mode.data, split=Split.all, out=str(folder / "seen.jsonl"))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "own.jinja").write_text(TEMPLATES.get(template, template))
    made.datasets = {"files": DatasetConfig(path=str(folder / "rows.jsonl"), test_fraction=0.0)}
    made.chat_template = str(folder / "own.jinja")
    return made


def test_texts_are_as_the_template_writes_them(tmp_path: Path) -> None:
    (pair,) = shown(tmp_path, [{"prompt": "red?", "chosen": "blue", "rejected": "green"}], "dpo")
    assert pair["prompt"] == "<|im_start|>user\nred?<|im_end|>\n<|im_start|>assistant\n"
    ends = "<|im_end|>\n<|endoftext|>"  # the tokenizer has no such token, so the template's mark ends no turn
    assert (pair["chosen"], pair["rejected"]) == (f"blue{ends}", f"green{ends}")
    (one,) = shown(tmp_path, [{"prompt": "red?", "completion": "blue", "label": False}], "kto", "thinking")
    assert (one["completion"], one["label"]) == ("<think>\n\n</think>\n\nblue<|im_end|>\n<|endoftext|>", False)
    assert sum(one["mask"]) == len(one["ids"]) - one["mask"].index(1)


def test_all_turns_are_one_text_with_a_mask(tmp_path: Path) -> None:
    turns = [("user", "one?"), ("assistant", "two"), ("user", "red?"), ("assistant", "blue")]
    made = config(tmp_path, [{"messages": [{"role": r, "content": c} for r, c in turns]}], "sft", "mistral")
    made.loss.train_on = TrainOn.all
    assert show_data(made) == 0
    (row,) = [json.loads(line) for line in Path(str(made.out)).read_text().splitlines()]
    assert (
        row["prompt"] + row["completion"] == "[INST] one? [/INST] two<|endoftext|>[INST] red? [/INST] blue<|endoftext|>"
    )
    assert row["mask"].count(1) < len(row["mask"]) - row["mask"].index(1)


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"{n}?", "chosen": "blue", "rejected": "green", "system": "brief"} for n in range(2)]
    no_system = TEMPLATES["chatml"].replace("in messages", "in messages if m.role != 'system'")
    shown(tmp_path, rows, "dpo", no_system)
    said = capsys.readouterr().out
    note = "conversation in which the chat template leaves out the content of a system turn"
    assert f"  2 × {note} (first: rows.jsonl:1, rows.jsonl:2)" in said.splitlines()


def test_pairs_that_are_equal_once_cut_are_dropped_with_their_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "red green blue river " * 40
    rows = [{"prompt": f"{n}?", "chosen": f"{long}one", "rejected": f"{long}two"} for n in range(3)]
    assert len(shown(tmp_path, [*rows, {"prompt": "4?", "chosen": "a", "rejected": "b"}], "dpo")) == 1
    said = capsys.readouterr().out
    assert "3 pairs in which chosen equals rejected once both are cut (first: rows.jsonl:1, rows.jsonl:2" in said


def test_truncation_of_all_is_said_with_the_length_that_would_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"{n}?", "completion": "red green blue river " * 60} for n in range(3)]
    found = shown(tmp_path, rows)
    said = capsys.readouterr().out
    assert "all 3 answers are truncated, none is trained to its end; the longest record has" in said
    longest = int(said.split("the longest record has ")[1].split()[0])
    made = config(tmp_path, rows, "sft", "chatml")
    made.model.max_length = longest
    assert show_data(made) == 0
    assert "truncated, none" not in capsys.readouterr().out
    assert all(len(row["ids"]) == 160 for row in found)


def test_what_is_doubtful_about_a_template_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = [{"prompt": "red?", "completion": "blue"}]
    shown(tmp_path, row)
    says = "writes <|im_start|>, <|im_end|>, which the tokenizer has not as tokens: they are text, which a message can"
    assert f"chat template: {says}" in capsys.readouterr().out
    shown(tmp_path, row, template="mistral")
    assert "chat template: " not in capsys.readouterr().out


def test_a_conversation_that_the_template_refuses_is_dropped_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATES["mistral"]
    )
    rows = [{"prompt": "red?", "completion": "blue"}, {"system": "brief", "prompt": "red?", "completion": "blue"}]
    assert len(shown(tmp_path, rows, template=refusing)) == 1
    assert "1 the chat template refuses (no system) (first: rows.jsonl:2)" in capsys.readouterr().out
    (tmp_path / "seen.jsonl").unlink()
    with pytest.raises(UserError, match=r"nothing is left to train on: 1 the chat template refuses \(no system\)"):
        shown(tmp_path, rows[1:], template=refusing)
    assert not list(tmp_path.glob("*seen*")), "no part of a file is left"


def test_a_template_with_a_mistake_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"chat_template: is no valid Jinja \(line 2: .*unknown tag 'endfo'"):
        shown(tmp_path, [{"prompt": "red?", "completion": "blue"}], template="{% for m in messages %}\n{% endfo %}")


def test_a_template_that_drops_every_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="chat_template: writes nothing of an answer"):
        shown(tmp_path, [{"prompt": "red?", "completion": "blue"}], template="{{ messages[0].content }}")
