"""Labelling conversations with calls and tools: what judges are shown, and which answers belong together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from prospect.conversation import Conversation, Message, answered, asked
from prospect.errors import UserError
from prospect.feedback import answers, rows, scoring
from prospect.feedback.answers import Group, gather
from prospect.feedback.options import parse
from prospect.feedback.stage import label
from prospect.judge import local
from prospect.judge.judges import Answered, grade
from prospect.judge.options import Asking
from prospect.message_forms import read
from prospect.model.score import RewardModel
from tests.judge.test_conversations import CALL, OTHERS, READ, SHAREGPT, TALK, THOUGHT, WEATHER
from tests.planted import plant

ROW: dict[str, Any] = {"messages": TALK, "tools": [WEATHER]}


def groups_of(folder: Path, *rows: dict[str, Any]) -> list[Group]:
    file = folder / "s.json"
    file.write_text(json.dumps([{"policy": f"Answer {i}.", **row} for i, row in enumerate(rows)]))
    return gather([file], ("policy",))[0]


@pytest.mark.parametrize(
    ("messages", "stored"),
    [
        ([{"role": "user", "content": "Why\u00e9?"}], "(('user', 'Why\u00e9?'),)"),
        ([TALK[0], {"role": "assistant", "content": "No."}, TALK[0] | {"weight": 0}],
         "(('user', 'Is it cold?'), ('assistant', 'No.'), ('user', 'Is it cold?'))"),
    ],
)  # fmt: skip
def test_plain_prompts_keep_their_ids_and_stored_scores(tmp_path, messages, stored):
    (group,) = groups_of(tmp_path, {"messages": messages})
    turns = [[message["role"], message["content"]] for message in messages]
    assert group.prompt_id == hashlib.sha256(json.dumps(turns).encode()).hexdigest()
    assert scoring._named(scoring._item(group, group.answers[0])) == f"({stored}, 'Answer 0.')"
    assert scoring._named(Answered("Why?", answered("So."))) == "('Why?', 'So.')"


@pytest.mark.parametrize(("old", "new"), [("is_plain", "is_empty"), ("message.content", "message.content.strip('?')")])
def test_planted_bugs_in_ids_are_seen(tmp_path, monkeypatch, old, new):
    plant(monkeypatch, answers._told, old, new)
    with pytest.raises(AssertionError):
        test_plain_prompts_keep_their_ids_and_stored_scores(tmp_path, [TALK[0]], "(('user', 'Is it cold?'),)")


@pytest.mark.parametrize("changed", OTHERS.values(), ids=OTHERS)
def test_other_calls_tools_or_thoughts_are_other_prompts(tmp_path, changed):
    groups = groups_of(tmp_path, ROW, ROW | changed, ROW)
    assert [len(group.answers) for group in groups] == [2, 1]
    assert len({scoring._named(scoring._item(group, groups[0].answers[0])) for group in groups}) == 2


def test_planted_bug_forgotten_calls_are_seen(tmp_path, monkeypatch):
    plant(monkeypatch, answers._told, "(*told, json.dumps(message.row()))", "told")
    with pytest.raises(AssertionError):
        test_other_calls_tools_or_thoughts_are_other_prompts(tmp_path, OTHERS["reasoning"])


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        {"messages": SHAREGPT, "tools": json.dumps([WEATHER])},
        {"conversations": SHAREGPT, "tools": [WEATHER]},
        {"prompt": TALK, "tools": [WEATHER]},
    ],
    ids=["OpenAI", "ShareGPT", "conversations", "TRL"],
)
def test_calls_and_tools_reach_the_judge_and_the_data_set(stub, tmp_path, row):
    both = [row | {"policy": policy} for policy in ("Yes.", "Yes, at -3 °C.")]
    (tmp_path / "s.json").write_text(json.dumps(both))
    flags = ("--prompt", "halos", "-j", "stub", "--base-url", stub.url, "--cache", str(tmp_path / "cache"))
    assert label(parse(["-f", str(tmp_path / "s.json"), "-o", str(tmp_path / "out.jsonl"), *flags])) == 0
    shown = [body["messages"][-1]["content"] for body in stub.requests]
    talk = read(next(value for key, value in row.items() if key != "tools"), [WEATHER])
    assert sum(talk.text() in text for text in shown) == 2
    assert talk.text() in (READ, READ.replace(THOUGHT, ""))
    (found,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert read(found["prompt"], found["tools"]) == talk


def test_a_reward_model_is_handed_the_whole_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[Conversation] = []

    class Model:
        def scores(self, talks: Sequence[Conversation]) -> list[float]:
            handed.extend(talks)
            return [0.5] * len(talks)

    (tmp_path / "config.json").touch()
    monkeypatch.setattr(RewardModel, "load", lambda *given, **more: Model())
    said = read([{"role": "assistant", "content": "", "tool_calls": [CALL]}]).messages[0]
    turns = read(TALK, [WEATHER])
    items = [Answered(turns.text(), said, turns=turns), Answered("Why?", answered("So."))]
    assert grade(Asking(judge=f"rm:{tmp_path}"), items).scores == [0.5, 0.5]
    assert handed == [turns.then(said), asked("Why?").then(answered("So."))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": TALK[:2]}, "row 1: the conversation does not end with a user's or a tool's turn"),
        ({"messages": [TALK[0] | {"content": " "}]}, "does not end with a user's or a tool's turn"),
        ({"messages": [TALK[0] | {"content": [{"type": "image"}]}]}, "row 1: `messages`: .* type image"),
        ({"prompt": "x", "tools": "hammer"}, "row 1: `prompt`: `tools` is no list of tools"),
        ({"prompt": 5}, "row 1: `prompt` is 5, not a text"),
        ({"policy": "x"}, "row 1: `prompt` is null, not a text"),
        ({"prompt": "x", "policy": TALK}, "row 1: `policy` is not one turn of the assistant"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, row, message):
    with pytest.raises(UserError, match=message) as error:
        groups_of(tmp_path, row)
    assert "\n" not in str(error.value)


def test_a_tool_may_have_nothing_to_say(tmp_path: Path) -> None:
    (group,) = groups_of(tmp_path, {"messages": [*TALK[:2], {"role": "tool", "content": ""}]})
    assert group.turns.messages[-1] == Message("tool", "")


def test_planted_bug_a_last_turn_of_a_tool_is_refused(tmp_path, monkeypatch):
    plant(monkeypatch, answers._turns, '("user", "tool")', '("user",)')
    with pytest.raises(UserError):
        test_a_tool_may_have_nothing_to_say(tmp_path)


def test_planted_bug_tools_that_are_not_written_are_seen(stub, tmp_path, monkeypatch):
    plant(monkeypatch, rows._start, "if group.turns.tools", "if not group.turns.tools")
    with pytest.raises(KeyError):
        test_calls_and_tools_reach_the_judge_and_the_data_set(stub, tmp_path, ROW)


def test_planted_bug_a_reward_model_without_turns_is_seen(tmp_path, monkeypatch):
    plant(monkeypatch, local.reward, "item.turns or asked", "asked")
    with pytest.raises(AssertionError):
        test_a_reward_model_is_handed_the_whole_conversation(tmp_path, monkeypatch)


def test_answers_that_were_cut_off_are_told_from_those_that_ended(tmp_path: Path) -> None:
    file = tmp_path / "samples.json"
    rows = [
        {"prompt": "q", "chosen": "a", "policy": text, "finish": end} for text, end in (("b", "stop"), ("c", "length"))
    ]
    file.write_text(json.dumps(rows))
    (group,), _ = gather([file], ["policy", "chosen"])
    assert {answer.text: answer.is_cut for answer in group.answers} == {"a": False, "b": False, "c": True}
