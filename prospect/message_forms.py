"""Conversations as other tools write them, read into one type (prospect/conversation.py).

The forms: OpenAI's messages (``role``, ``content``, ``tool_calls``, ``tool_call_id``), ShareGPT's (``from``, ``value``,
with ``function_call`` and ``observation``), content as a list of parts, reasoning beside content, and structs of lists.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prospect.conversation import Call, Conversation, Message, Speaker

_SPEAKERS: Mapping[str, Speaker] = {
    **dict.fromkeys(("system", "developer"), "system"),  # OpenAI's newer name for the same turn
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "ai", "function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "function_response", "ipython"), "tool"),
}
_CALLERS = ("function_call", "tool_call")  # speakers whose text is a call, as JSON
_REASONING = ("reasoning_content", "thinking", "reasoning")
_LEARNED = ("weight", "train", "loss")  # false: the turn is not trained
_MEDIA = frozenset(("image", "images", "audio", "audios", "video", "videos"))
_TEXT_PARTS = ("text", "input_text", "output_text")
_MEDIA_PARTS = (*_MEDIA, "image_url", "input_image", "input_audio", "audio_url", "video_url", "file")
_READ: Mapping[Speaker, frozenset[str]] = {  # keys of a turn, by its speaker, beside those that all have
    "system": frozenset(),
    "user": frozenset(),
    "assistant": frozenset(("tool_calls", "function_call", *_REASONING)),
    "tool": frozenset(("name", "tool_call_id")),
}
_READ_OF_ALL = frozenset(("role", "from", "content", "value", "id", "mask", *_LEARNED))


class UnreadableError(ValueError):
    """A turn or a list of tools that cannot be read. Its text is the reason, for people."""


def read(rows: object, tools: object = None) -> Conversation:
    """A conversation from messages in any of the known forms.

    Raises:
        UnreadableError: what is no list of messages, or a turn that is no text (an image, say).
    """
    return Conversation(tuple(messages(rows)), read_tools(tools))


def messages(rows: object) -> Iterator[Message]:
    """Turns from a list of messages, one message, or a struct of lists.

    ShareGPT's turn of a call joins the assistant's turn before it: there a text and each call have turns of their own.
    """
    last: Message | None = None
    for row in _listed(rows):
        turn = read_message(row)
        if last is not None and last.role == "assistant" and _speaker(row) in _CALLERS:
            calls = (*last.calls, *turn.calls)
            last = replace(last, calls=calls, trained=last.trained and turn.trained)
            continue
        if last is not None:
            yield last
        last = turn
    if last is not None:
        yield last


def unread_keys(rows: object) -> Iterator[str]:
    """Keys of each turn that hold something and are not read, for turns that ``messages`` reads."""
    for row in _listed(rows):
        known = _READ_OF_ALL | _READ[_SPEAKERS[_speaker(row)]]
        yield from (str(key) for key, value in row.items() if key not in known and holds(value))


def holds(value: object) -> bool:
    """Whether a cell, or the value of a key, says anything."""
    return value is not None and value != "" and value != [] and value != {}


def read_message(row: object) -> Message:
    """One turn from a mapping with ``role`` and ``content``, or ``from`` and ``value``.

    Raises:
        UnreadableError: an unknown role, content that is no text, a call that is none.
    """
    if not isinstance(row, Mapping):
        raise UnreadableError("holds something that is no message")
    for key in _MEDIA & row.keys():
        if holds(row[key]):
            raise UnreadableError(f"has a turn with `{key}`: Prospect trains on text alone")
    given = _speaker(row)
    if given not in _SPEAKERS:
        raise UnreadableError(f"has a turn of role `{row.get('role', row.get('from'))}`")
    speaker = _SPEAKERS[given]
    content = row.get("content") if row.get("content") is not None else row.get("value")
    if given in _CALLERS:
        return Message(speaker, "", calls=tuple(_calls(_value(content))), trained=_trained(row))
    answers, is_tool = speaker == "assistant", speaker == "tool"
    calls = [*_given_calls(row)] if answers else []
    thought = _thought(row) if answers else ""
    said = _said(content, speaker, may_lack=bool(calls or thought))
    return Message(
        speaker,
        _without(thought, said.text),
        reasoning=unicode(thought or said.thought),
        calls=(*calls, *said.calls),
        name=str(row.get("name") or "") if is_tool else "",
        call_id=str(row.get("tool_call_id") or "") if is_tool else "",
        trained=_trained(row) if answers else True,
    )


def _without(thought: str, text: str) -> str:
    """An answer's text without a thought at its beginning that a field of its own holds, too."""
    start, _, rest = text.partition("</think>")
    twice = bool(thought.strip()) and start.strip().removeprefix("<think>").strip() == thought.strip()
    return rest.lstrip("\n") if twice else text


def read_tools(value: object) -> str:
    """Descriptions of tools, a list or its JSON text, as JSON text in OpenAI's form; empty where there are none.

    Raises:
        UnreadableError: it is no list of objects.
    """
    found = _value(value)
    if not holds(found):
        return ""
    if isinstance(found, Mapping):
        found = [found]
    if not isinstance(found, list | tuple):
        raise UnreadableError("`tools` is no list of tools")
    tools = [_value(tool) for tool in found]
    if not all(isinstance(tool, Mapping) for tool in tools):
        raise UnreadableError("`tools` is no list of tools")
    whole = [
        tool if "function" in tool or "name" not in tool else {"type": "function", "function": tool} for tool in tools
    ]
    return unicode(json.dumps(whole, ensure_ascii=False))


def read_stored(text: str) -> object:
    """The list or mapping that a text spells in JSON or in Python; None for any other text."""
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def is_conversation(value: object) -> bool:
    """Whether a value has the form of messages: each is a mapping with ``role`` or ``from``."""
    rows = value if isinstance(value, list | tuple) else [value]
    return bool(rows) and all(isinstance(row, Mapping) and ("role" in row or "from" in row) for row in rows)


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


def _listed(rows: object) -> list[Any]:
    """A list of messages as it is, one message as a list, a struct of lists (as Parquet may store it) as a list."""
    if isinstance(rows, list | tuple) and len(rows) == 1 and isinstance(rows[0], list):
        rows = rows[0]
    if isinstance(rows, list | tuple) and rows:
        return list(rows)
    if not isinstance(rows, Mapping):
        raise UnreadableError("is no list of messages")
    lists = {key: value for key, value in rows.items() if isinstance(value, list)}
    speakers = lists.get("role", lists.get("from"))
    if speakers is None:
        return [rows]
    if any(len(value) != len(speakers) for value in lists.values()):
        raise UnreadableError("is a struct of lists of different lengths")
    if not speakers:
        raise UnreadableError("is no list of messages")
    return [{key: value[i] for key, value in lists.items() if value[i] is not None} for i in range(len(speakers))]


def _speaker(row: Any) -> str:
    given = row.get("role", row.get("from")) if isinstance(row, Mapping) else None
    return given.strip().lower().replace("-", "_") if isinstance(given, str) else ""


def _thought(row: Mapping[str, Any]) -> str:
    """What a turn thought, as a key beside its content says; several keys must say the same."""
    given = {key: row[key] for key in _REASONING if holds(row.get(key))}
    if any(not isinstance(value, str) for value in given.values()):
        raise UnreadableError("has a turn whose reasoning is not text")
    if len(set(given.values())) > 1:
        raise UnreadableError(f"has a turn that says {' and '.join(f'`{key}`' for key in given)}, which differ")
    return next(iter(given.values()), "")


@dataclass(frozen=True, slots=True)
class _Said:
    """What a content holds."""

    text: str = ""
    thought: str = ""
    calls: tuple[Call, ...] = ()


def _said(content: object, speaker: Speaker, may_lack: bool) -> _Said:
    """A content that is text or a list of parts; a tool's may be any JSON."""
    if isinstance(content, str):
        return _Said(unicode(content))
    if content is None and may_lack:
        return _Said()
    if isinstance(content, list) and content and all(map(_is_part, content)):
        parts = [_part(part) for part in content]
        calls = tuple(call for part in parts for call in part.calls)
        return _Said("".join(part.text for part in parts), "".join(part.thought for part in parts), calls)
    if speaker == "tool" and content is not None:
        return _Said(unicode(json.dumps(content, ensure_ascii=False)))
    raise UnreadableError("has a turn whose content is not text")


def _is_part(part: object) -> bool:
    return isinstance(part, str) or (isinstance(part, Mapping) and ("type" in part or "text" in part))


def _part(part: object) -> _Said:
    """One part of a content: text, a thought, or a call."""
    if isinstance(part, str):
        return _Said(unicode(part))
    assert isinstance(part, Mapping)
    kind, text = str(part.get("type") or "text"), part.get("text")
    if kind in _TEXT_PARTS and isinstance(text, str):
        return _Said(unicode(text))
    if kind in ("thinking", "reasoning") and isinstance(thought := part.get("thinking", text), str):
        return _Said(thought=unicode(thought))
    if kind == "tool_use":  # Anthropic's
        return _Said(calls=tuple(_calls({**part, "arguments": part.get("input")})))
    if kind in _MEDIA_PARTS:
        raise UnreadableError(f"has a part of type {kind}: Prospect trains on text alone")
    raise UnreadableError(f"has a part of type {kind} {'without text' if kind in _TEXT_PARTS else 'that is not read'}")


def _given_calls(row: Mapping[str, Any]) -> Iterable[Call]:
    for key in ("tool_calls", "function_call"):
        value = row.get(key)
        if holds(value):
            yield from _calls(_value(value))


def _calls(value: object) -> list[Call]:
    """Calls from one or a list of ``{name, arguments}``, as such or within ``function``."""
    return [_call(item) for item in (value if isinstance(value, list | tuple) else [value])]


def _call(item: object) -> Call:
    given = item if isinstance(item, Mapping) else {}
    function = given.get("function", given)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UnreadableError("has a call without a name")
    arguments = function.get("arguments", function.get("parameters"))
    as_text = isinstance(arguments, str) and bool(arguments)
    text = str(arguments) if as_text else json.dumps(arguments or {}, ensure_ascii=False)
    return Call(unicode(function["name"]), unicode(text), str(given.get("id") or ""), as_text)


def _value(given: object) -> Any:
    """What a text spells in JSON or Python; all else as it is."""
    if not isinstance(given, str):
        return given
    found = read_stored(given)
    return given if found is None else found


def _trained(row: Mapping[str, Any]) -> bool:
    """Whether the turn may be trained: ``weight``, ``train`` or ``loss`` of 0, or a ``mask``, says no."""
    for key in (*_LEARNED, "mask"):
        value = row.get(key)
        if value is None:
            continue
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise UnreadableError(f"has a turn whose `{key}` is {value!r}: 0 or 1, false or true")
        if bool(value) == (key == "mask"):
            return False
    return True
