"""A conversation: its turns, what an assistant's turn thought and called, and the tools that were on offer.

One type for all who read or write conversations: data sources, chat templates, sample files, judges. ``read`` takes the
forms that other tools write: OpenAI's messages (``role``, ``content``, ``tool_calls``, ``tool_call_id``), ShareGPT's
(``from``, ``value``, with ``function_call`` and ``observation``), content as a list of parts, reasoning beside content.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Speaker = Literal["system", "user", "assistant", "tool"]

_SPEAKERS: Mapping[str, Speaker] = {
    **dict.fromkeys(("system", "developer"), "system"),  # OpenAI's newer name for the same turn
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "ai", "function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "ipython"), "tool"),
}
_CALLERS = ("function_call", "tool_call")  # speakers whose text is a call, as JSON
_REASONING = ("reasoning_content", "thinking", "reasoning")
_LEARNED = ("weight", "train", "loss")  # false: the turn is not trained
KEYS = frozenset(
    (
        *("role", "from", "content", "value", "tool_calls", "function_call", "name", "tool_call_id", "id", "mask"),
        *_REASONING,
        *_LEARNED,
    )
)


class UnreadableError(ValueError):
    """A turn or a list of tools that cannot be read. Its text is the reason, for people."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that a turn calls, with JSON text as arguments. ``as_text``: the row gave them as text, as OpenAI does."""

    name: str
    arguments: str = "{}"
    id: str = ""
    as_text: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. ``name`` and ``call_id`` say of a tool's turn which call it answers; ``trained``: false, never."""

    role: Speaker
    content: str
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    name: str = ""
    call_id: str = ""
    trained: bool = True

    @property
    def is_plain(self) -> bool:
        """Whether role and content say all."""
        return self == Message(self.role, self.content)

    @property
    def is_empty(self) -> bool:
        """Whether the turn neither says nor calls anything."""
        return not (self.content.strip() or self.calls)

    def called(self) -> list[str]:
        """Every text in its calls: names, and texts in arguments."""
        return [text for call in self.calls for text in (call.name, *_texts(_value(call.arguments)))]

    def row(self) -> dict[str, Any]:
        """In OpenAI's form, with the keys that hold something."""
        row: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning:
            row["reasoning_content"] = self.reasoning
        if self.calls:
            row["tool_calls"] = [_call_row(call) for call in self.calls]
        row |= {"name": self.name} if self.name else {}
        row |= {"tool_call_id": self.call_id} if self.call_id else {}
        return row if self.trained else row | {"weight": 0}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns, and the tools that the assistant may call: JSON text of a list of descriptions, empty where there are
    none."""

    messages: tuple[Message, ...]
    tools: str = ""

    def then(self, *messages: Message) -> Conversation:
        """The same with further turns."""
        return replace(self, messages=(*self.messages, *messages))

    def rows(self) -> list[dict[str, Any]]:
        """All turns in OpenAI's form."""
        return [message.row() for message in self.messages]

    def tool_rows(self) -> list[Any]:
        """The tools in OpenAI's form."""
        return list(json.loads(self.tools)) if self.tools else []

    def text(self) -> str:
        """As a reader sees it: the tools, then each turn with its speaker and calls; one turn needs no speaker.

        Judges are asked with this text, and what they said is kept under it: other words would be asked, and paid for,
        again.
        """
        if not self.tools and len(self.messages) == 1:
            return spoken(self.messages[0])
        turns = [f"TOOLS: {self.tools}"] if self.tools else []
        return "\n\n".join([*turns, *(f"{m.role.upper()}: {spoken(m)}" for m in self.messages)])


def asked(content: str) -> Conversation:
    """A conversation of one question."""
    return Conversation((Message("user", content),))


def answered(content: str) -> Message:
    """An assistant's turn that says nothing but ``content``."""
    return Message("assistant", content)


def spoken(message: Message) -> str:
    """A turn's text as a reader sees it: reasoning between <think> marks, what it says, then each call as JSON."""
    parts = [f"<think>\n{message.reasoning}\n</think>"] if message.reasoning else []
    parts += [message.content] if message.content else []
    for call in message.calls:
        said = json.dumps({"name": call.name, "arguments": _value(call.arguments)}, ensure_ascii=False)
        parts.append(f"<tool_call>\n{said}\n</tool_call>")
    return "\n".join(parts)


def read(rows: object, tools: object = None) -> Conversation:
    """A conversation from messages in any of the known forms.

    Raises:
        UnreadableError: what is no list of messages, or a turn that is no text (an image, say).
    """
    return Conversation(tuple(messages(rows)), read_tools(tools))


def messages(rows: object) -> Iterator[Message]:
    """Turns from a list of messages; consecutive calls of ShareGPT's become one turn."""
    if isinstance(rows, Mapping):
        rows = _listed(rows)
    if not isinstance(rows, list | tuple) or not rows:
        raise UnreadableError("is no list of messages")
    yield from (read_message(row) for row in rows)


def read_message(row: object) -> Message:
    """One turn from a mapping with ``role`` and ``content``, or ``from`` and ``value``.

    Raises:
        UnreadableError: an unknown role, content that is no text, a call that is none.
    """
    if not isinstance(row, Mapping):
        raise UnreadableError("holds something that is no message")
    given = row.get("role", row.get("from"))
    speaker = _SPEAKERS.get(given.strip().lower()) if isinstance(given, str) else None
    if speaker is None:
        raise UnreadableError(f"role `{given}`")
    content = row.get("content") if row.get("content") is not None else row.get("value")
    calls = [*_given_calls(row)]
    if given in _CALLERS:
        calls += _calls(_value(content) if isinstance(content, str) else content)
        content = ""
    thought = next((row[key] for key in _REASONING if row.get(key)), None)
    text, thinking = _text_of(content, speaker, may_lack=bool(calls or thought))
    thought = thought or thinking
    if thought is not None and not isinstance(thought, str):
        raise UnreadableError("reasoning is not text")
    return Message(
        speaker,
        text,
        reasoning=unicode(thought or ""),
        calls=tuple(calls),
        name=str(row.get("name") or "") if speaker == "tool" else "",
        call_id=str(row.get("tool_call_id") or "") if speaker == "tool" else "",
        trained=_trained(row),
    )


def read_tools(value: object) -> str:
    """Descriptions of tools, a list or its JSON text, as JSON text; empty where there are none.

    Raises:
        UnreadableError: it is no list of objects.
    """
    found = _value(value) if isinstance(value, str) else value
    if found is None or found == "" or found == []:
        return ""
    if isinstance(found, Mapping):
        found = [found]
    if not isinstance(found, list | tuple):
        raise UnreadableError("`tools` is no list of tools")
    tools = [_value(tool) if isinstance(tool, str) else tool for tool in found]
    if not all(isinstance(tool, Mapping) for tool in tools):
        raise UnreadableError("`tools` is no list of tools")
    return unicode(json.dumps(tools, ensure_ascii=False))


def without_nulls(value: Any) -> Any:
    """The same without keys whose value is null: Arrow gives every struct all keys that any row has."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def unicode(text: str) -> str:
    """``text``, if no lone surrogate is in it, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnreadableError("has a lone surrogate (broken Unicode)") from None
    return text


def _call_row(call: Call) -> dict[str, Any]:
    arguments = call.arguments if call.as_text else _value(call.arguments)
    row: dict[str, Any] = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
    return {"id": call.id, **row} if call.id else row


def _listed(rows: Mapping[str, Any]) -> list[Any]:
    """One message as a list; a struct of lists, as Parquet stores a list of structs, as the list it was."""
    lists = {key: value for key, value in rows.items() if isinstance(value, list)}
    speakers = lists.get("role", lists.get("from"))
    if speakers is None:
        return [rows]
    if any(len(value) != len(speakers) for value in lists.values()):
        raise UnreadableError("is a struct of lists of different lengths")
    return [{key: value[i] for key, value in lists.items() if value[i] is not None} for i in range(len(speakers))]


def _text_of(content: object, speaker: Speaker, may_lack: bool) -> tuple[str, str]:
    """(what is said, what is thought) of a content that is text or a list of parts; a tool's may be any JSON."""
    if isinstance(content, str):
        return unicode(content), ""
    if content is None and may_lack:
        return "", ""
    if isinstance(content, list) and content and all(map(_is_part, content)):
        pairs = [_part(part) for part in content]
        return "".join(said for said, _ in pairs), "".join(thought for _, thought in pairs)
    if speaker == "tool" and content is not None:
        return unicode(json.dumps(content, ensure_ascii=False)), ""
    raise UnreadableError("content is not text")


def _is_part(part: object) -> bool:
    return isinstance(part, str) or (isinstance(part, Mapping) and ("type" in part or "text" in part))


def _part(part: object) -> tuple[str, str]:
    """(what is said, what is thought) of one part of a content."""
    if isinstance(part, str):
        return unicode(part), ""
    assert isinstance(part, Mapping)
    kind, text = str(part.get("type") or "text"), part.get("text")
    if kind in ("text", "input_text", "output_text") and isinstance(text, str):
        return unicode(text), ""
    if kind in ("thinking", "reasoning") and isinstance(thought := part.get("thinking", text), str):
        return "", unicode(thought)
    if kind in ("text", "input_text", "output_text"):
        raise UnreadableError("content has a part of text without text")
    raise UnreadableError(f"content has a part of type {kind}: Prospect trains on text alone")


def _given_calls(row: Mapping[str, Any]) -> Iterable[Call]:
    for key in ("tool_calls", "function_call"):
        value = row.get(key)
        if value:
            yield from _calls(_value(value) if isinstance(value, str) else value)


def _calls(value: object) -> list[Call]:
    """Calls from one or a list of ``{name, arguments}``, as such or within ``function``."""
    found: list[Call] = []
    for item in value if isinstance(value, list | tuple) else [value]:
        function = item.get("function", item) if isinstance(item, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise UnreadableError("a call without a name")
        given = function.get("arguments", function.get("parameters"))
        as_text = isinstance(given, str) and bool(given)
        arguments = given if as_text else json.dumps(given or {}, ensure_ascii=False)
        found.append(Call(unicode(function["name"]), unicode(arguments), str(item.get("id") or ""), as_text))
    return found


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _value(text: str) -> Any:
    """What JSON text says; text that is no JSON as it is."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _trained(row: Mapping[str, Any]) -> bool:
    """Whether the turn may be trained: ``weight``, ``train`` or ``loss`` of 0, or a ``mask``, says no."""
    for key in (*_LEARNED, "mask"):
        value = row.get(key)
        if value is None:
            continue
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise UnreadableError(f"`{key}` of a turn is {value!r}: 0 or 1, false or true")
        if bool(value) == (key == "mask"):
            return False
    return True
