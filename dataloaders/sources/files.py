"""One's own data: the shapes that TRL and LLaMA-Factory read, told apart by their columns.

A prompt is a text, a list of messages, or absent where chosen and rejected begin alike. Messages are ``{role,
content}`` or ShareGPT's ``{from, value}``. Further columns are ignored; other names are mapped with
``datasets.<name>.columns``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dataloaders.example import Drops, Example
from dataloaders.sources.rows import Row, Rows
from dataloaders.sources.source import BadRow, each_row, unicode, user
from prospect.config.schema import Split
from prospect.conversation import Message
from prospect.errors import UserError

Turns = tuple[Message, ...]

_ALIASES: Mapping[str, str] = {  # other tools' names for the same thing
    "conversations": "messages",
    "instruction": "prompt",
    "question": "prompt",
    "output": "completion",
    "response": "completion",
    "kto_tag": "label",
    "response_chosen": "chosen",
    "response_rejected": "rejected",
}
_ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_LABELS = {"true": True, "1": True, "false": False, "0": False}
COLUMNS = (
    *("prompt", "messages", "input", "system", "history", "completion", "chosen", "rejected", "label"),
    *("score", "score_chosen", "score_rejected", "text"),
)


def read(rows: Rows, split: Split, seed: int, drops: Drops) -> Iterator[Example]:
    """One example a row, in whichever of the known shapes the rows come."""
    found = rows.found
    rows = rows.renamed({ours: alias for alias, ours in _ALIASES.items() if alias in found and ours not in found})
    known = {_ALIASES.get(column, column) for column in found}
    shape = next((shape for shape in SHAPES if shape.columns <= known), None)
    if not shape:
        raise UserError(
            f"{rows.origin}: columns {', '.join(found)} are no known shape ({'; '.join(s.says for s in SHAPES)}); "
            f"map them with datasets.<name>.columns, as in ++datasets.files.columns.prompt={found[0]}"
        )
    return each_row(rows, drops, (lambda row: shape.example(_typed(row))) if rows.is_text else shape.example)


def _pair(row: Row) -> Example:
    context, chosen, rejected = _context(row), row.get("chosen"), row.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str) and not context:
        opening, chosen, rejected = _common_opening(chosen, rejected)
        context = user(opening)
    better, worse = _turns(chosen, "chosen", "assistant"), _turns(rejected, "rejected", "assistant")
    shared = _common(better[:-1], worse[:-1])
    own = better[:shared]  # turns that both repeat, or that hold the whole prompt
    prompt = own if own[len(own) - len(context) :] == context else context + own
    answers = (_answer(better[shared:], "chosen"), _answer(worse[shared:], "rejected"))
    scores = _scores(row, "score_chosen", "score_rejected")
    return Example("", "", _ordered(prompt), answers, pairs=((0, 1),), scores=scores)


def _single(row: Row) -> Example:
    if row.get("completion") is not None:
        prompt, last = _context(row), _turns(row["completion"], "completion", "assistant")
    else:
        turns = _context(row)
        prompt, last = turns[:-1], turns[-1:]
    return Example("", "", _ordered(prompt), (_answer(last, "answer"),), scores=_scores(row, "score"))


def _labelled(row: Row) -> Example:
    label = row.get("label")
    if not isinstance(label, (bool, int, float)) or label not in (0, 1):
        raise UserError(f"`label` is {label!r}; write true for a desirable answer, false for an undesirable one")
    single = _single(row)
    return Example(
        *("", "", single.prompt, single.answers),
        desirable=(bool(label),),
        scores=single.scores,
        imitate=0 if label else None,
    )


def _prompt_only(row: Row) -> Example:
    return Example("", "", _ordered(_context(row)), (), imitate=None)


def _document(row: Row) -> Example:
    if row.get("text") is None:
        raise BadRow("no `text`")
    return Example("", "", (), (), imitate=None, text=unicode(row["text"], "`text`"))


@dataclass(frozen=True, slots=True)
class Shape:
    """Columns that tell a shape, and how one of its rows is read."""

    says: str
    columns: frozenset[str]
    example: Callable[[Row], Example]


SHAPES = (
    Shape("prompt or messages or nothing, with chosen and rejected", frozenset({"chosen", "rejected"}), _pair),
    Shape("prompt, completion, label", frozenset({"prompt", "completion", "label"}), _labelled),
    Shape("messages, label", frozenset({"messages", "label"}), _labelled),
    Shape("prompt, completion", frozenset({"prompt", "completion"}), _single),
    Shape("messages", frozenset({"messages"}), _single),
    Shape("prompt", frozenset({"prompt"}), _prompt_only),
    Shape("text", frozenset({"text"}), _document),
)


def _context(row: Row) -> Turns:
    """The turns before the answer, as far as columns of their own hold them."""
    system, prompt, extra = row.get("system"), row.get("prompt"), row.get("input")
    if isinstance(prompt, str) and extra:  # Alpaca: an instruction and what it is about
        prompt = f"{prompt}\n{unicode(extra, '`input`')}"
    turns: Turns = (Message("system", unicode(system, "`system`")),) if system else ()
    for exchange in row.get("history") or ():  # LLaMA-Factory: earlier [question, answer] pairs
        if not isinstance(exchange, list) or len(exchange) != 2:
            raise BadRow("`history` is no list of [question, answer]")
        question, answer = exchange
        turns += (Message("user", unicode(question, "`history`")), Message("assistant", unicode(answer, "`history`")))
    if prompt is not None:
        return turns + _turns(prompt, "prompt", "user")
    return turns + (_turns(row["messages"], "messages", "user") if row.get("messages") is not None else ())


def _turns(value: Any, column: str, role: Literal["user", "assistant"]) -> Turns:
    """Messages from a text (said by ``role``), one message or a list of them."""
    if value is None:
        raise BadRow(f"no `{column}`")
    if isinstance(value, str) and column != "messages":
        return (Message(role, unicode(value, f"`{column}`")),)
    messages = [value] if isinstance(value, Mapping) else value
    if not isinstance(messages, list) or not messages:
        raise BadRow(f"`{column}` is no list of messages{'' if column == 'messages' else ', nor text'}")
    return tuple(_message(message, column) for message in messages)


def _message(message: Any, column: str) -> Message:
    if not isinstance(message, Mapping):
        raise BadRow(f"`{column}` holds something that is no message")
    speaker = message.get("role", message.get("from"))
    if not isinstance(speaker, str) or speaker not in _ROLES:
        raise BadRow(f"role `{speaker}` in `{column}`")
    return Message(_ROLES[speaker], unicode(message.get("content", message.get("value")), f"content in `{column}`"))


def _answer(turns: Turns, column: str) -> Message:
    if len(turns) != 1:
        raise BadRow(f"`{column}` is not one turn")
    if turns[0].role != "assistant":
        raise BadRow(f"`{column}` is not an assistant turn")
    return turns[0]


def _ordered(prompt: Turns) -> Turns:
    """The prompt, if its turns alternate from user to user after an optional system turn."""
    talk = prompt[1:] if prompt and prompt[0].role == "system" else prompt
    if not talk:
        raise BadRow("no prompt")
    if any(turn.role != ("user", "assistant")[index % 2] for index, turn in enumerate(talk)):
        raise BadRow("roles do not alternate user, assistant")
    return prompt


def _common_opening(chosen: str, rejected: str) -> tuple[str, str, str]:
    """TRL's implicit prompt: what two texts share, up to the space before the first difference."""
    if chosen.startswith("\n\nHuman:"):
        raise UserError("this is dialogue text as in Anthropic HH; read it with datasets.<name>.source=hh")
    shared = _common(chosen, rejected)
    if chosen[shared - 1 : shared] == " ":
        shared -= 1
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _common(one: Sequence[object], other: Sequence[object]) -> int:
    """How many items both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def _typed(row: Row) -> Row:
    """A row of texts with its label and scores read; what cannot be read stays, and is refused where it is used."""
    typed = dict(row)
    typed["label"] = _LABELS.get(str(row.get("label")).lower(), row.get("label"))
    for column in ("score", "score_chosen", "score_rejected"):
        with contextlib.suppress(KeyError, ValueError):
            typed[column] = float(row[column])
    return typed


def _scores(row: Row, *columns: str) -> tuple[float, ...]:
    values = [row.get(column) for column in columns]
    if all(value is None for value in values):
        return ()
    for column, value in zip(columns, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"`{column}` is {value!r}; write a number")
    return tuple(float(value) for value in values if value is not None)
