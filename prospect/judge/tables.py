"""Files of rows, JSON or JSONL, and what the cells of a row say: texts, messages, a prompt with what belongs to it."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prospect.conversation import Conversation, Message
from prospect.errors import UserError
from prospect.message_forms import UnreadableError, read

Row = Mapping[str, Any]
_BESIDE = ("input", "context")  # columns that complete a prompt of text, as Alpaca's and Dolly's rows have them


def text_of(path: Path) -> str:
    """What a file of text holds.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start}: not UTF-8") from None


def content_of(path: Path) -> Any:
    """One JSON value, or a list of those that stand one a line. A line of results that a crash has torn is left out,
    which is said: the next run has begun a line of its own behind it.

    Raises:
        UserError: the file cannot be read, or a line is no JSON.
    """
    text = text_of(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        whole = error
    rows: list[Any] = []
    torn: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            torn.append((number, error.msg))
    if torn and not (rows and all(map(is_result, rows))):
        number, why = torn[0]
        raise UserError(f"{path}: line {whole.lineno}: {whole.msg}" if number == 1 else f"{path}: line {number}: {why}")
    for number, _ in torn:
        _say_torn(path, number)
    return rows


@functools.cache  # a file may be read twice
def _say_torn(path: Path, number: int) -> None:
    print(f"warning: {path}: line {number} is no whole line of results: left out", file=sys.stderr)


def load_rows(path: Path) -> list[Row]:
    """The objects of a JSON list or of JSONL.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    content = content_of(path)
    rows = content if isinstance(content, list) else [content]
    check_rows(path, rows)
    if not rows:
        raise UserError(f"{path}: no rows")
    return rows


def check_rows(path: Path, rows: list[Any]) -> None:
    """Refuse rows that are no objects.

    Raises:
        UserError: names the first one.
    """
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number}: expected an object, found {json.dumps(row)[:40]}")


def is_result(row: object) -> bool:
    """Whether a row is a line of results: one comparison, as HALOs' compare.py and ours append it."""
    return (
        isinstance(row, dict)
        and {"candidate", "baseline", "total"} <= row.keys()
        and isinstance(row["candidate"], dict)
    )


def is_messages(value: object) -> bool:
    """Whether a cell holds messages: a list of objects, or one object."""
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(turn, dict) for turn in value)
    )


def said(place: str, value: object, tools: object = None) -> Conversation:
    """The messages of a cell, in whichever form, with the tools on offer.

    Raises:
        UserError: they cannot be read; it begins with ``place``.
    """
    try:
        return read(sendable(value), sendable(tools))
    except UnreadableError as error:
        raise UserError(f"{place}: {error}") from None


def sendable(value: Any) -> Any:
    """The same with a replacement character for every lone surrogate, which no request can carry."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [sendable(item) for item in value]
    return {sendable(key): sendable(item) for key, item in value.items()} if isinstance(value, dict) else value


def answer_in(row: Row, column: str) -> Any:
    """A cell that holds an answer. AlpacaEval's ``output: null`` is an empty answer, null elsewhere a missing one."""
    return "" if column == "output" and column in row and row[column] is None else row.get(column)


def with_input(row: Row, column: str, prompt: str) -> str:
    """A prompt of text with what stands beside it in its row (``input`` or ``context``), as training reads it: rows
    that differ in that alone ask different things. What the prompt holds already is not said twice."""
    for name in _BESIDE:
        extra = row.get(name)
        if name != column and isinstance(extra, str) and extra.strip() and extra.strip() not in prompt:
            return f"{prompt}\n{sendable(extra)}"
    return prompt


def with_system(row: Row, talk: Conversation) -> Conversation:
    """A conversation under the instructions of its row's ``system``, where it has none of its own."""
    system = row.get("system")
    if not isinstance(system, str) or not system.strip() or any(turn.role == "system" for turn in talk.messages):
        return talk
    return replace(talk, messages=(Message("system", str(sendable(system))), *talk.messages))
