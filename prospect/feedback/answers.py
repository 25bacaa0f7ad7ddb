"""The answers of sample files, gathered by the conversation that they answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prospect.conversation import Conversation, Message, answered, asked, spoken
from prospect.errors import UserError, nearest
from prospect.judge.samples import read_samples
from prospect.judge.tables import answer_in, is_messages, said, sendable, with_input, with_system

_ALIASES = {"policy": "output", "prompt": "instruction"}  # our columns → AlpacaEval's
_PROMPTS = ("messages", "conversations", "prompt", "instruction")  # columns of a conversation, the best first
_HUMAN, _ASSISTANT = "\n<|user|>\n", "\n<|assistant|>\n"  # marks of prompts that were written down without messages


@dataclass(frozen=True, slots=True)
class Sampled:
    """One answer; ``name`` says where it comes from: run, column and sample."""

    name: str
    said: Message
    is_cut: bool = False  # by max_new_tokens: the model had not come to an end

    @property
    def text(self) -> str:
        """As a judge reads it."""
        return spoken(self.said)


@dataclass(slots=True)
class Group:
    """A conversation and everything that was answered to it."""

    prompt_id: str
    turns: Conversation
    dataset: str
    reference: str
    answers: list[Sampled] = field(default_factory=list)

    @property
    def conversation(self) -> str:
        """As a judge reads it."""
        return self.turns.text()


def identity(talk: Conversation) -> tuple[tuple[str, ...], ...]:
    """What tells a conversation from others: (role, content) of each turn, and after it whatever else a turn holds, and
    the tools. Whether a turn is trained is none of it."""
    turns = tuple(_told(replace(message, trained=True)) for message in talk.messages)
    return (*turns, ("tools", talk.tools)) if talk.tools else turns


def _told(message: Message) -> tuple[str, ...]:
    told = (message.role, message.content)
    return told if message.is_plain else (*told, json.dumps(message.row()))


def gather(files: Sequence[Path], columns: Sequence[str]) -> tuple[list[Group], Counter[str]]:
    """Groups in the files' order, and counts of what was left out.

    Raises:
        UserError: a file cannot be read, or lacks a column, or a cell is no text.
    """
    groups: dict[str, Group] = {}
    left_out: Counter[str] = Counter()
    for file in files:
        rows, config = read_samples(file)
        names = {_column(file, rows[0], column): column for column in columns}
        run, numbers = str(config.get("exp_name") or file.stem), Counter[str]()
        for number, row in enumerate(rows, 1):
            turns = _turns(file, number, row, config)
            key = hashlib.sha256(json.dumps(identity(turns)).encode()).hexdigest()
            dataset = str(row.get("category") or row.get("dataset") or "")
            group = groups.setdefault(key, Group(key, turns, dataset, str(row.get("reference") or "")))
            index = row.get("sample", row.get("sample_id"))
            index = index if isinstance(index, int) else numbers[key]
            numbers[key] += 1
            for column, given in names.items():
                answer = _answer(file, number, column, row)
                is_cut = row.get("finish") == "length" and given == "policy"
                left_out.update(_add(group, Sampled(f"{run}/{given}/{index}", answer, is_cut)))
    return list(groups.values()), left_out


def _add(group: Group, answer: Sampled) -> Iterator[str]:
    """Take an answer in; why not, if not."""
    if not answer.text.strip():
        yield "empty answers"
    elif any(answer.text == other.text for other in group.answers):
        yield "answers that come twice"
    else:
        group.answers.append(answer)


def _column(file: Path, row: Mapping[str, Any], wanted: str) -> str:
    for name in (wanted, _ALIASES.get(wanted)):
        if name is not None and name in row:
            return name
    known = sorted(map(str, row))
    raise UserError(f"{file}: no column `{wanted}` (-ck){nearest(wanted, known)}; it has {', '.join(known)}")


def _turns(file: Path, number: int, row: Mapping[str, Any], config: Mapping[str, Any]) -> Conversation:
    """The conversation: its messages, or its text, parted at the marks of the run's template."""
    column = next((name for name in _PROMPTS if row.get(name)), "prompt")
    given = row.get(column)
    if not is_messages(given):
        text = with_input(row, column, _text(file, number, column, given))
        human, assistant = str(config.get("human_prefix") or _HUMAN), str(config.get("assistant_prefix") or _ASSISTANT)
        given = [message.row() for message in _parted(text, human, assistant)]
    found = with_system(row, said(_place(file, number, column), given, row.get("tools")))
    last = found.messages[-1]
    if last.role not in ("user", "tool") or (last.role == "user" and last.is_empty):
        raise UserError(f"{file}: row {number}: the conversation does not end with a user's or a tool's turn")
    return found


def _parted(text: str, human: str, assistant: str) -> list[Message]:
    if not text.startswith(human):
        return [*asked(text).messages]
    parts = re.split(f"({re.escape(human)}|{re.escape(assistant)})", text)[1:]
    turns = [
        Message("user" if mark == human else "assistant", words)
        for mark, words in zip(parts[::2], parts[1::2], strict=True)
    ]
    return turns[:-1] if turns[-1] == answered("") else turns


def _answer(file: Path, number: int, column: str, row: Mapping[str, Any]) -> Message:
    """A text, or one message of the assistant, with its calls."""
    value = answer_in(row, column)
    if not is_messages(value):
        return answered(_text(file, number, column, value))
    found = said(_place(file, number, column), value).messages
    if len(found) != 1 or found[0].role != "assistant":
        raise UserError(f"{_place(file, number, column)} is not one turn of the assistant")
    return found[0]


def _text(file: Path, number: int, column: str, value: Any) -> str:
    """A cell as text that can be sent."""
    if not isinstance(value, str):
        raise UserError(f"{_place(file, number, column)} is {json.dumps(value)[:40]}, not a text")
    return str(sendable(value))


def _place(file: Path, number: int, column: str) -> str:
    return f"{file}: row {number}: `{column}`"
