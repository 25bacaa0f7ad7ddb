"""Prompts are cut where a model has no room for them, and nowhere else; what is left is a prompt of the template."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from prospect.config.schema import Config, DatasetConfig, Mode, Split
from prospect.conversation import Conversation, asked
from prospect.errors import UserError
from prospect.model.template import ChatFormat
from prospect.parallel import World
from prospect.sampling import room as rooms
from prospect.sampling.room import Room, fit, fit_all, longest_answer
from tests import tiny
from tests.model.formats import chat, talk
from tests.model.shapes import build
from tests.planted import plant
from trainers.eval_run import evaluate_run
from trainers.launch import train_in_process

TURNS = talk(
    ("system", "red"),
    ("user", "what is one and two?"),
    ("assistant", "it is three."),
    ("user", "what is green?"),
    ("assistant", "blue is"),
    ("user", "what is red and green and blue?"),
)
TEMPLATES = ("chatml", "llama3", "mistral", "thinking", "unstable", "archangel")


def ids(format_: ChatFormat, conversation: Conversation) -> tuple[int, ...]:
    return tuple(format_.encode(format_.prompt(conversation)))


def without(start: int, system: bool = True) -> Conversation:
    return replace(TURNS, messages=(*TURNS.messages[: int(system)], *TURNS.messages[start:]))


@pytest.mark.parametrize("template", TEMPLATES)
def test_whole_turns_go_first_then_the_start_of_the_question(template: str) -> None:
    format_ = chat(template)
    whole = ids(format_, TURNS)
    assert fit(format_, TURNS, len(whole)).ids == fit(format_, TURNS, None).ids == whole
    assert fit(format_, TURNS, len(whole)).cut == 0
    for left in (without(3), without(5), without(5, system=False)):
        kept = ids(format_, left)
        found = fit(format_, TURNS, len(kept))
        assert (found.ids, found.cut) == (kept, len(whole) - len(kept))
    last = without(5, system=False)
    question = last.messages[0].content
    room = len(ids(format_, last)) - 5
    found = fit(format_, last, room)
    ends = [ids(format_, asked(" ".join(question.split()[start:]))) for start in range(len(question.split()))]
    assert found.ids == next(end for end in ends if len(end) <= room), "as many of its last words as have room"


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_cut_is_longer_than_its_room_or_loses_what_asks_for_an_answer(template: str) -> None:
    format_ = chat(template)
    least = len(ids(format_, asked("?")))
    mark = format_.encode(format_.prompt(asked("?")).rpartition("?")[2])
    for room in range(2, len(ids(format_, TURNS)) + 2):
        found = fit(format_, TURNS, room).ids
        assert 0 < len(found) <= room
        if room >= least:
            assert list(found[len(found) - len(mark) :]) == mark


def test_planted_cut_of_tokens_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, fit, "_cut_question(chat, shortest, room) or _end_of", "_end_of")
    with pytest.raises(AssertionError, match="as many of its last words"):
        test_whole_turns_go_first_then_the_start_of_the_question("chatml")


def test_an_answer_that_takes_all_positions_is_refused() -> None:
    assert Room.of(build("llama"), 127).prompt == 1
    with pytest.raises(UserError) as error:
        Room.of(build("llama"), 128)
    assert str(error.value) == (
        "max_new_tokens: 128 leave no room for a prompt in the model's 128 positions; "
        "++max_new_tokens=64 leaves half of them"
    )


def test_what_is_cut_is_said(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("prospect").propagate = True
    format_ = chat("chatml")
    left = len(ids(format_, without(5)))
    with caplog.at_level("WARNING", logger="prospect"):
        fit_all(format_, {"short": asked("what?")}, Room(100, 200))
        assert not caplog.messages
        fit_all(format_, {"short": asked("what?"), "long": TURNS}, Room(100, 100 + left))
    assert caplog.messages == [
        "prompts: 1 of 2 are cut to their last turns: beside answers of up to 100 tokens (max_new_tokens) the model's "
        f"{100 + left} positions have no room for more (long: {left} of {len(ids(format_, TURNS))} tokens are left)"
    ]


def test_the_longest_answer_is_what_training_leaves_unless_said() -> None:
    assert longest_answer(Config()) == 1024
    assert longest_answer(Config(max_new_tokens=7)) == 7


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run on questions longer than its max_prompt_length; one is longer than its model."""
    folder = tmp_path_factory.mktemp("room")
    rows = [{"prompt": "river " * n, "completion": "stone"} for n in (1, 120, 700)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = tiny.config(folder, n_examples=2, batch_size=2, max_prompt_length=20)
    made.datasets = {"files": DatasetConfig(path=str(folder / "rows.jsonl"), test_fraction=0.0)}
    made.eval_split = Split.train
    assert train_in_process(made, World()) == 0
    return replace(made, split=Split.train, max_new_tokens=4, temperature=0.0, mode=Mode.sample)


def test_sampling_cuts_nothing_that_has_room(trained: Config, tmp_path: Path) -> None:
    assert evaluate_run(replace(trained, samples_dir=str(tmp_path))) == 0
    rows = json.loads((tmp_path / "sft.json").read_text())["samples"]
    short, long, longest = sorted(rows, key=lambda row: len(row["messages"][0]["content"]))
    for row in (short, long):
        assert row["prompt"] == f"\n<|user|>\n{row['messages'][0]['content']}\n<|assistant|>\n"
        assert "prompt_cut" not in row
    assert longest["prompt_cut"] > 100
    assert longest["prompt"].startswith("\n<|user|>\n")
    assert longest["prompt"].endswith("river \n<|assistant|>\n")
    assert longest["messages"][0]["content"] == "river " * 700


def test_sampling_more_than_the_model_has_positions_is_refused(trained: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max_new_tokens: 512 leave no room for a prompt in the model's 512 positions"):
        evaluate_run(replace(trained, samples_dir=str(tmp_path), max_new_tokens=512))
    with pytest.raises(UserError, match="max_new_tokens: 600 leave no room"):
        evaluate_run(replace(trained, mode=Mode.probe, probes=["?"], max_new_tokens=600))


def test_planted_cut_at_max_prompt_length_is_seen(
    trained: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, rooms.fit, "if room is None or len(whole) <= room", "whole = whole[-20:]\n    if True")
    with pytest.raises(AssertionError):
        test_sampling_cuts_nothing_that_has_room(trained, tmp_path)
