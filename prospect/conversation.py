"""A conversation: its turns, what an assistant's turn thought and called, and the tools that were on offer.

One type for all who read or write conversations: data sources, chat templates, sample files, judges.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Speaker = Literal["system", "user", "assistant", "tool"]


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
        return [text for call in self.calls for text in (call.name, *_texts(_parsed(call.arguments)))]

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
        spelled = json.dumps({"name": call.name, "arguments": _parsed(call.arguments)}, ensure_ascii=False)
        parts.append(f"<tool_call>\n{spelled}\n</tool_call>")
    return "\n".join(parts)


def _call_row(call: Call) -> dict[str, Any]:
    arguments = call.arguments if call.as_text else _parsed(call.arguments)
    row: dict[str, Any] = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
    return {"id": call.id, **row} if call.id else row


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _parsed(text: str) -> Any:
    """What JSON text says; text that is no JSON as it is."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
