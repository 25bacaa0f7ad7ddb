"""Messages of every form become one type; what cannot be read says why."""

from __future__ import annotations

import pytest

from prospect.conversation import Call, Conversation, Message
from prospect.message_forms import UnreadableError, read, read_tools, unread_keys

HELLO, HI = Message("user", "Hello"), Message("assistant", "Hi")
CALL = Call("look", '{"at": null}')
ASKS = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize(
    "rows",
    [
        [ASKS, {"role": "assistant", "content": "Hi"}],
        [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}],
        [{"role": "User", "content": "Hello"}, {"role": "model", "content": "Hi", "name": None}],
        [
            {"role": "user", "content": ["Hel", {"text": "lo"}]},
            {"role": "bot", "content": [{"type": "text", "text": "Hi"}]},
        ],
        {"role": ["user", "assistant"], "content": ["Hello", "Hi"]},
        [[ASKS, {"role": "assistant", "content": "Hi", "weight": 1, "mask": False, "train": True}]],
    ],
)
def test_forms_of_messages(rows: object) -> None:
    assert read(rows) == Conversation((HELLO, HI))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"content": "Hi", "reasoning_content": "hm"}, Message("assistant", "Hi", reasoning="hm")),
        ({"content": "Hi", "thinking": "hm", "reasoning": "hm"}, Message("assistant", "Hi", reasoning="hm")),
        (
            {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi"}]},
            Message("assistant", "Hi", reasoning="hm"),
        ),
        ({"content": None, "reasoning": "hm"}, Message("assistant", "", reasoning="hm")),
        ({"content": "Hi", "weight": 0}, Message("assistant", "Hi", trained=False)),
        ({"content": "Hi", "train": False}, Message("assistant", "Hi", trained=False)),
        ({"content": "Hi", "mask": 1, "weight": 1}, Message("assistant", "Hi", trained=False)),
        (
            {"content": None, "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": {"at": None}}}]},
            Message("assistant", "", calls=(Call("look", '{"at": null}', "c"),)),
        ),
        (
            {"content": "", "function_call": {"name": "look", "arguments": '{"at": null}'}},
            Message("assistant", "", calls=(Call("look", '{"at": null}', as_text=True),)),
        ),
        (
            {"content": [{"type": "tool_use", "id": "c", "name": "look", "input": {"at": None}}]},
            Message("assistant", "", calls=(Call("look", '{"at": null}', "c"),)),
        ),
    ],
)
def test_what_an_answer_thinks_calls_and_may_train(answer: dict[str, object], expected: Message) -> None:
    assert read([{"role": "assistant", **answer}]).messages == (expected,)


def test_calls_that_have_turns_of_their_own_join_the_turn_before_them() -> None:
    turns = [
        {"from": "human", "value": "Hello"},
        {"from": "gpt", "value": "Hi"},
        {"from": "function_call", "value": '{"name": "look", "arguments": {"at": null}}'},
        {"from": "Function_Call", "value": "[{'name': 'look', 'arguments': {'at': None}}]"},
        {"from": "observation", "value": "red"},
    ]
    assert read(turns).messages == (HELLO, Message("assistant", "Hi", calls=(CALL, CALL)), Message("tool", "red"))


def test_a_tool_answers_any_json_and_says_to_which_call() -> None:
    row = {"role": "tool", "tool_call_id": "c", "name": "look", "content": {"red": 1}}
    assert read([row]).messages == (Message("tool", '{"red": 1}', name="look", call_id="c"),)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("Hello", "is no list of messages"),
        ([], "is no list of messages"),
        (["Hello"], "holds something that is no message"),
        ([{"role": "judge", "content": "x"}], "has a turn of role `judge`"),
        ([{"content": "x"}], "has a turn of role `None`"),
        ([{"role": "user", "content": 3}], "has a turn whose content is not text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "has a part of type image: Prospect trains on text alone"),
        ([{"role": "user", "content": [{"type": "text"}]}], "has a part of type text without text"),
        ([{"role": "user", "content": [{"type": "tool_result"}]}], "has a part of type tool_result that is not read"),
        ([{**ASKS, "images": ["x"]}], "has a turn with `images`: Prospect trains on text alone"),
        ([{"role": "assistant", "tool_calls": [{"id": "x"}]}], "has a call without a name"),
        (
            [{"role": "assistant", "content": "x", "weight": 0.5}],
            "has a turn whose `weight` is 0.5: 0 or 1, false or true",
        ),
        (
            [{"role": "assistant", "content": "x", "thinking": "a", "reasoning": "b"}],
            "has a turn that says `thinking` and `reasoning`, which differ",
        ),
        ({"role": ["user"], "content": []}, "is a struct of lists of different lengths"),
        ([{"role": "user", "content": "\ud800"}], "has a lone surrogate (broken Unicode)"),
    ],
)
def test_what_cannot_be_read_says_why(rows: object, reason: str) -> None:
    with pytest.raises(UnreadableError) as error:
        read(rows)
    assert str(error.value) == reason


@pytest.mark.parametrize(
    "tools", [[{"name": "f"}], '[{"name": "f"}]', "[{'name': 'f'}]", ['{"name": "f"}'], {"name": "f"}]
)
def test_forms_of_tools(tools: object) -> None:
    """All become OpenAI's, which templates are written for."""
    assert read_tools(tools) == '[{"type": "function", "function": {"name": "f"}}]'


def test_a_thought_given_twice_is_one_thought() -> None:
    row = {"role": "assistant", "content": "<think>\nhm\n</think>\n\n4", "reasoning_content": "hm"}
    assert read([row]).messages == (Message("assistant", "4", reasoning="hm"),)
    other = row | {"reasoning_content": "no"}
    assert read([other]).messages[0].content == row["content"]


@pytest.mark.parametrize("tools", [None, "", [], "[]"])
def test_no_tools(tools: object) -> None:
    assert read_tools(tools) == ""


@pytest.mark.parametrize("tools", ["f", ["f"], 3, "[3]"])
def test_what_is_no_list_of_tools(tools: object) -> None:
    with pytest.raises(UnreadableError, match="`tools` is no list of tools"):
        read_tools(tools)


def test_keys_that_are_not_read_are_those_that_say_something() -> None:
    user = {**ASKS, "name": "Ann", "id": "1", "tool_calls": None, "weight": 0, "tone": ""}
    assert list(unread_keys([user, {"role": "assistant", "content": "x", "citations": [1]}])) == ["name", "citations"]


def test_messages_written_and_read_again_are_the_same() -> None:
    calls = (Call("look", '{"at": 1}', "c"), Call("look", '{"at":1}', as_text=True), Call("look", "[1]"))
    turns = (
        HELLO,
        Message("assistant", "x", "hm", calls, trained=False),
        Message("tool", "y", name="look", call_id="c"),
    )
    conversation = Conversation(turns)
    assert read(conversation.rows()) == conversation
