"""What label.py writes, as datasets, TRL and the source ``files`` read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from trl.data_utils import (
    is_conversational,
    maybe_apply_chat_template,
    maybe_extract_prompt,
    maybe_unpair_preference_dataset,
)

from dataloaders import load_examples
from dataloaders.example import Drops
from prospect.config.schema import DatasetConfig, Split
from prospect.conversation import Conversation
from prospect.errors import UserError
from prospect.feedback import answers
from prospect.feedback import rows as feedback
from prospect.feedback.answers import gather
from prospect.feedback.options import parse
from prospect.feedback.stage import label
from prospect.message_forms import read
from tests.judge.test_conversations import CALL, TALK, WEATHER
from tests.planted import plant

KINDS = ("pairwise", "binary", "scored")
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "Why?"}]
FORECAST = {"type": "function", "function": {"name": "forecast", "parameters": {"type": "object", "required": ["day"]}}}
OTHER_CALL = {"type": "function", "id": "c1", "function": {"name": "forecast", "arguments": '{"day": 3}'}}
OTHER_TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "Wait.", "tool_calls": [OTHER_CALL]},
    {"role": "tool", "content": "Sun", "tool_call_id": "c1"},
]
PLAIN: list[dict[str, Any]] = [{"messages": QUESTION}, {"messages": [{"role": "system", "content": "s"}, *QUESTION]}]
MIXED = [
    *PLAIN,
    {"messages": TALK, "tools": [WEATHER]},
    {"messages": OTHER_TALK, "tools": [FORECAST, WEATHER]},
    {"messages": TALK},
]
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def labelled(
    folder: Path, prompts: list[dict[str, Any]], kind: str, answers: tuple[Any, ...] = ("So.", "No!!")
) -> Path:
    """The data set of two answers to each prompt."""
    (folder / "s.json").write_text(json.dumps([row | {"policy": text} for row in prompts for text in answers]))
    flags = ["-f", str(folder / "s.json"), "-j", "longest", "--feedback", kind, "-o", str(folder / "out.jsonl")]
    assert label(parse([*flags, "--cache", str(folder / "cache")])) == 0
    return folder / "out.jsonl"


def loaded(file: Path, **more: Any) -> datasets.Dataset:
    found = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(file.parent), **more)
    assert isinstance(found, datasets.Dataset)
    return found


def asked(prompts: list[dict[str, Any]]) -> set[Conversation]:
    return {read(row["messages"], row.get("tools")) for row in prompts}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"x": 0}, unk_token="x")), chat_template=TEMPLATE
    )


@pytest.mark.parametrize("prompts", [PLAIN, MIXED], ids=["plain", "mixed"])
@pytest.mark.parametrize("kind", KINDS)
def test_trl_reads_it_as_conversational(tmp_path, tokenizer, kind, prompts):
    found = loaded(labelled(tmp_path, prompts, kind))
    assert {read(row["prompt"], row.get("tools")) for row in found} == asked(prompts), "nothing is lost in Arrow"
    answers = [column for column in ("chosen", "rejected", "completion") if column in found.column_names]
    for row in found:
        assert all(is_conversational({column: row[column]}) for column in ("prompt", *answers))
        assert maybe_extract_prompt(row) == row
        tools = json.loads(row["tools"]) if row.get("tools") else None  # as TRL's trainers do
        seen = maybe_apply_chat_template(row, tokenizer, tools=tools)
        talk = read(row["prompt"], row.get("tools"))
        whole = {"tools": talk.tool_rows() or None, "tokenize": False, "add_generation_prompt": True}
        assert seen["prompt"] == tokenizer.apply_chat_template(talk.rows(), **whole)
        assert [seen[column] for column in answers] == [row[column][0]["content"] for column in answers]
    unpaired = maybe_unpair_preference_dataset(found)
    assert len(unpaired) == 2 * len(prompts)
    assert ("label" in unpaired.column_names) == (kind != "scored")


def test_planted_bug_answers_as_text_are_seen(tmp_path, tokenizer, monkeypatch):
    plant(monkeypatch, feedback._turn, "[scored.answer.said.row()]", "scored.answer.text")
    with pytest.raises((AssertionError, TypeError)):
        test_trl_reads_it_as_conversational(tmp_path, tokenizer, "pairwise", PLAIN)


@pytest.mark.parametrize("prompts", [MIXED, MIXED[::-1]], ids=["plain first", "plain last"])
def test_datasets_reads_large_files_whatever_comes_first(tmp_path, prompts):
    call = {"role": "assistant", "tool_calls": [CALL]}
    file = labelled(tmp_path, prompts, "pairwise", ("So.", "No!!", call))
    found = loaded(file, chunksize=64)  # bytes, in place of 10 MB
    assert {read(row["prompt"], row["tools"]) for row in found} == asked(prompts)


def test_planted_bug_another_order_is_seen(tmp_path, monkeypatch):
    plant(monkeypatch, feedback.widest_first, "-len", "len")
    with pytest.raises(datasets.exceptions.DatasetGenerationError):
        test_datasets_reads_large_files_whatever_comes_first(tmp_path, MIXED)


READ: dict[str, list[dict[str, Any]]] = {  # of each prompt, by the kind of feedback
    "pairwise": [{"answers": ["No!!", "So."], "scores": (4.0, 3.0), "pairs": ((0, 1),), "desirable": ()}],
    "binary": [
        {"answers": ["So."], "scores": (3.0,), "pairs": (), "desirable": (False,)},
        {"answers": ["No!!"], "scores": (4.0,), "pairs": (), "desirable": (True,)},
    ],
    "scored": [
        {"answers": ["So."], "scores": (3.0,), "pairs": (), "desirable": ()},
        {"answers": ["No!!"], "scores": (4.0,), "pairs": (), "desirable": ()},
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_source_files_reads_the_same(tmp_path, kind):
    config, drops = DatasetConfig(path=str(labelled(tmp_path, MIXED, kind))), Drops()
    found = list(load_examples("files", config, Split.all, 0, drops))
    for row in MIXED:
        mine = [example for example in found if example.conversation == read(row["messages"], row.get("tools"))]
        assert READ[kind] == [
            {
                "answers": [answer.content for answer in example.answers],
                "scores": example.scores,
                "pairs": example.pairs,
                "desirable": example.desirable,
            }
            for example in mine
        ]
    assert not drops.reasons
    assert not drops.notes


def test_what_it_writes_can_be_judged_anew(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    file = labelled(tmp_path, MIXED, "pairwise", ("So.", call))
    groups, left_out = gather([file], ("chosen", "rejected"))
    assert {group.turns for group in groups} == asked(MIXED)
    assert {group.prompt_id for group in groups} == {json.loads(line)["prompt_id"] for line in file.open()}
    for group in groups:
        assert [answer.said.row() for answer in group.answers] == [call, {"role": "assistant", "content": "So."}]
    assert not left_out


def test_planted_bug_calls_of_an_answer_are_lost(tmp_path, monkeypatch):
    plant(monkeypatch, answers._answer, "    return found[0]", "    return answered(found[0].content)")
    with pytest.raises(UserError, match="no prompt has two different answers"):
        test_what_it_writes_can_be_judged_anew(tmp_path)
