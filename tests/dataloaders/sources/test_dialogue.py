"""Turns of a row: which orders there are, where the answer is, what of a conversation is trained."""

from __future__ import annotations

import json
from typing import Any

import datasets
import pytest

from dataloaders.sources import dialogue
from prospect.conversation import Call, Message
from tests.planted import plant

CALL = {"function": {"name": "weather", "arguments": {"city": "Paris", "unit": None}}}
TOOLS = [{"name": "weather"}]
WRAPPED = [{"type": "function", "function": TOOLS[0]}]  # as OpenAI writes it


def turn(role: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


S, U, A = turn("system"), turn("user"), turn("assistant")
CALLS, T = turn("assistant", None, tool_calls=[CALL]), turn("tool")
IN_TEXT = turn("assistant", "<tool_call>\n{}\n</tool_call>")


@pytest.mark.parametrize(
    "turns",
    [
        [U, A],
        [S, U, A, U, A],
        [turn("developer"), U, A],
        [U, CALLS],
        [U, CALLS, T, A],
        [U, CALLS, T, T, CALLS, T, A],
        [U, CALLS, U, A],
        [U, IN_TEXT, T, A],
    ],
)
def test_orders_of_turns(load, turns):
    (example,), _ = load("files", [{"messages": turns}])
    assert len(example.prompt) + 1 == len(turns)


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([A], "no prompt"),
        ([U, U, A], "roles do not alternate user, assistant"),
        ([U, A, A], "prompt does not end with a user turn"),
        ([U, A, T, A], "a tool's turn that follows no call"),
        ([T, A], "a tool's turn that follows no call"),
        ([U, CALLS, T, U, A], "roles do not alternate user, assistant"),
        ([U, S, A], "a system turn that is not the first"),
        ([U], "no assistant turn"),
        ([U, turn("assistant", weight=0)], "no assistant turn may be trained (weight, train, loss, mask)"),
        ([U, turn("assistant", [{"type": "image_url"}])], "part of type image_url: Prospect trains on text alone"),
        ([U, turn("assistant", "")], "empty answer"),
    ],
)
def test_other_orders_are_refused(load, turns, reason):
    _, drops = load("files", [{"messages": [U, A]}, {"messages": turns}])
    (said,) = drops.reasons
    assert said.endswith(reason)


def test_tools_and_calls_are_kept_as_they_stand(load):
    asks = [turn("user"), turn("assistant", "I look.", tool_calls=[CALL])]
    (example,), drops = load("files", [{"tools": TOOLS, "messages": asks}])
    call = Call("weather", '{"city": "Paris", "unit": null}')
    assert (example.tools, example.answers) == (
        json.dumps(WRAPPED),
        (Message("assistant", "I look.", calls=(call,)),),
    )
    assert drops.notes == {}


@pytest.mark.parametrize("tools", [TOOLS, '[{"name": "weather"}]', "[{'name': 'weather'}]", TOOLS[0]])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "x", "chosen": [CALLS], "rejected": "no"},
        {"prompt": "x", "completion": CALLS, "label": True},
        {"prompt": "x", "completion": [CALLS]},
        {"prompt": "x"},
        {"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": '{"name": "f"}'}]},
    ],
)
def test_every_shape_may_carry_tools(load, row, tools):
    (example,), _ = load("files", [{**row, "tools": tools}])
    assert json.loads(example.tools) == WRAPPED


def test_arrow_adds_no_nulls_to_a_conversation(load, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    other = {"function": {"name": "time", "arguments": {"zone": "CET"}}}
    rows = [{"messages": [U, turn("assistant", None, tool_calls=[call])], "tools": TOOLS} for call in (CALL, other)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "t.parquet")
    weather, time = load("files", tmp_path / "t.parquet")[0]
    assert [e.answers[0].calls[0].arguments for e in (weather, time)] == ['{"city": "Paris"}', '{"zone": "CET"}']


def test_the_answer_is_the_last_turn_that_may_be_trained(load):
    wrong, right, late = (
        turn("assistant", "4", weight=0),
        turn("assistant", "3", weight=1),
        turn("assistant", train=False),
    )
    (example,), drops = load("files", [{"messages": [U, wrong, U, right, U, late]}])
    assert (example.answers[0].content, [t.trained for t in example.prompt]) == ("3", [True, False, True])
    assert drops.notes == {"turns after the last answer that may be trained are left out": 1}


def test_an_answer_that_may_not_be_trained_would_be(load, monkeypatch):
    plant(monkeypatch, dialogue.answered, "if talk[i].trained", "if True")
    (example,), _ = load("files", [{"messages": [U, A, U, turn("assistant", "late", weight=0)]}])
    assert example.answers[0].content == "late"


def test_a_tool_turn_without_a_call_would_pass(load, monkeypatch):
    plant(monkeypatch, dialogue.ordered, 'turn.role == "tool" and', "False and")
    assert load("files", [{"messages": [U, A, T, A]}])[0]
