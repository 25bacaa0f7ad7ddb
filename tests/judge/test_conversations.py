"""What a judge reads of a conversation, and which rows ask the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from prospect.conversation import Call, Conversation, Message, asked
from prospect.errors import UserError
from prospect.judge import tables
from prospect.judge.options import Options
from prospect.judge.samples import Pair, load_match
from tests.planted import plant

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Is it cold?"},
    {"role": "assistant", "content": "", "reasoning_content": "Ask.", "tool_calls": [CALL]},
    {"role": "tool", "content": "-3 °C", "name": "weather"},
]
SHAREGPT: list[dict[str, Any]] = [
    {"from": "human", "value": "Is it cold?"},
    {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
    {"from": "observation", "value": "-3 °C", "name": "weather"},
]
PARTS: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "Is it cold?"}]}, *TALK[1:]]
THOUGHT = "<think>\nAsk.\n</think>\n"
READ = f"""TOOLS: {json.dumps([WEATHER])}

USER: Is it cold?

ASSISTANT: {THOUGHT}<tool_call>
{{"name": "weather", "arguments": {{"city": "Oslo"}}}}
</tool_call>

TOOL: -3 °C"""


def pair_of(folder: Path, *, history: str = "prompt", **row: Any) -> Pair:
    """The pair of a file of one row."""
    (folder / "s.json").write_text(json.dumps([{"policy": "Yes.", "chosen": "No.", **row}]))
    (pair,) = load_match(Options(folder / "s.json", history_key=history)).pairs
    return pair


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([("user", " Why?\n")], " Why?\n"),
        ([("assistant", "Hello.")], "Hello."),
        ([("user", "Hi"), ("assistant", ""), ("user", "Why?")], "USER: Hi\n\nASSISTANT: \n\nUSER: Why?"),
        ([("system", "Be brief."), ("user", "Why?")], "SYSTEM: Be brief.\n\nUSER: Why?"),
        ([("user", "Cold?"), ("tool", "-3")], "USER: Cold?\n\nTOOL: -3"),
        ([("user", "a\ud800b")], "a?b"),
    ],
)
def test_plain_messages_read_as_they_always_did(tmp_path, messages, text):
    """Replies that were paid for are found by these bytes."""
    rows = [{"role": role, "content": content} for role, content in messages]
    none: tuple[object, ...] = ([], None, "[]")
    for tools in none:
        pair = pair_of(tmp_path, prompt="x", messages=rows, tools=tools)
        assert pair.conversation == text
        assert pair.prompt_id == hashlib.sha256(text.encode()).hexdigest()
    assert pair_of(tmp_path, prompt="x", messages=[row | {"weight": 0} for row in rows]).conversation == text


@pytest.mark.parametrize(
    ("old", "new", "roles", "text"),
    [
        ("\\n\\n", "\\n", ("user", "tool"), "USER: a\n\nTOOL: b"),
        (".upper()", "", ("user", "tool"), "USER: a\n\nTOOL: b"),
        ("== 1", "== 0", ("user",), "a"),
    ],
)
def test_planted_bugs_in_the_text_are_seen(tmp_path, monkeypatch, old, new, roles, text):
    plant(monkeypatch, Conversation.text, old, new)
    with pytest.raises(AssertionError):
        test_plain_messages_read_as_they_always_did(tmp_path, [*zip(roles, "ab", strict=False)], text)


@pytest.mark.parametrize(
    "messages", [TALK, PARTS, SHAREGPT], ids=["OpenAI", "parts", "ShareGPT, which says no thoughts"]
)
@pytest.mark.parametrize("tools", [[WEATHER], json.dumps([WEATHER])], ids=["tools", "tools as text"])
def test_a_judge_reads_calls_results_and_tools(tmp_path, messages, tools):
    pair = pair_of(tmp_path, prompt="x", messages=messages, tools=tools)
    thought = "" if messages is SHAREGPT else "Ask."
    assert pair.conversation == (READ if thought else READ.replace(THOUGHT, ""))
    call = Message("assistant", "", thought, (Call("weather", '{"city": "Oslo"}'),))
    turns = asked("Is it cold?").then(call, Message("tool", "-3 °C", name="weather"))
    assert pair.turns is not None
    assert (pair.turns.messages, json.loads(pair.turns.tools)) == (turns.messages, [WEATHER])
    assert pair_of(tmp_path, prompt=messages, tools=tools) == pair, "as label.py and TRL write it"
    assert pair_of(tmp_path, history="talk", talk=messages, tools=tools) == pair


def test_a_text_that_a_template_wrote_holds_its_tools(tmp_path):
    whole = pair_of(tmp_path, history="text", text="<tools>…</tools>Cold?", messages=TALK, tools=[WEATHER])
    assert whole.conversation == "<tools>…</tools>Cold?"
    assert whole.turns is not None
    assert len(whole.turns.messages) == 3
    bare = pair_of(tmp_path, prompt="Cold?", tools=[WEATHER])
    assert bare.conversation == f"TOOLS: {json.dumps([WEATHER])}\n\nUSER: Cold?"
    assert pair_of(tmp_path, prompt="Cold?").turns is None


def other(turn: int, **keys: Any) -> list[dict[str, Any]]:
    """The talk with one turn changed."""
    return [*TALK[:turn], TALK[turn] | keys, *TALK[turn + 1 :]]


OTHERS = {
    "call": {
        "messages": other(1, tool_calls=[CALL | {"function": {"name": "weather", "arguments": {"city": "Rome"}}}])
    },
    "no call": {"messages": other(1, tool_calls=[])},
    "reasoning": {"messages": other(1, reasoning_content="Look.")},
    "result": {"messages": other(2, content="30 °C")},
    "no tools": {"tools": []},
    "tools": {"tools": [WEATHER, WEATHER]},
}


@pytest.mark.parametrize("changed", OTHERS.values(), ids=OTHERS)
def test_other_calls_tools_or_thoughts_are_other_prompts(tmp_path, changed):
    row: dict[str, Any] = {"prompt": "x", "messages": TALK, "tools": [WEATHER]}
    assert pair_of(tmp_path, **row).prompt_id != pair_of(tmp_path, **(row | changed)).prompt_id


def test_planted_bug_lost_tools_are_seen(tmp_path, monkeypatch):
    plant(monkeypatch, tables.said, "sendable(tools)", "None")
    with pytest.raises(AssertionError):
        test_other_calls_tools_or_thoughts_are_other_prompts(tmp_path, OTHERS["no tools"])


def test_an_answer_that_is_a_message_is_read_like_a_text(tmp_path):
    said = [{"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]}]
    pair = pair_of(tmp_path, prompt="Cold?", policy=said, chosen=[{"role": "assistant", "content": "No."}])
    assert pair.candidate.startswith('Let me see.\n<tool_call>\n{"name": "weather"')
    assert pair.baseline == "No."


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [{"role": "robot", "content": "hi"}]}, "row 1: `messages`: .*role `robot`"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "row 1: `messages`: .* type image"),
        ({"messages": ["hi"]}, "row 1: `messages` is .*, not a text"),
        ({"prompt": [{"role": "user"}]}, "row 1: `prompt`: .*content is not text"),
        ({"tools": "hammer"}, "row 1: `prompt`: `tools` is no list of tools"),
        ({"policy": {"role": "assistant"}}, "row 1: `policy`: .*content is not text"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, row, message):
    with pytest.raises(UserError, match=message) as error:
        pair_of(tmp_path, **({"prompt": "x"} | row))
    assert "\n" not in str(error.value)
