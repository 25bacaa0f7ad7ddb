"""What a source is: one generator that turns rows into examples, and where its rows live.

A source leaves an example's ``id`` and ``dataset`` empty: ``load_examples`` fills them in. A row that it cannot use it
refuses with BadRow; the row is then left out, counted under that reason and reported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType

from dataloaders.example import Drops, Example
from dataloaders.sources.rows import Hub, Row, Rows
from prospect.config.schema import Split
from prospect.conversation import Message, answered
from prospect.errors import UserError

Reader = Callable[[Rows, Split, int, Drops], Iterator[Example]]  # rows, part, seed, drops


class BadRow(Exception):
    """A row that cannot be used. Its text is the reason that users read."""


@dataclass(frozen=True, slots=True)
class Source:
    """How a data set is read. ``read`` sees the part it reads, for rules that hold in training only."""

    read: Reader
    required: tuple[str, ...] = ()  # columns that every row has
    optional: tuple[str, ...] = ()  # columns that are read where they exist
    hub: Hub | None = None
    splits: Mapping[Split, str] = field(default_factory=dict)  # our part -> its name on the hub
    generate: Callable[[Split, int], Iterator[Row]] | None = None  # rows from code instead of from a file
    rules: tuple[ModuleType, ...] = ()  # further modules that decide what the examples are


def each_row(rows: Rows, drops: Drops, parse: Callable[[Row], Example]) -> Iterator[Example]:
    """The example of each row, for sources where one row is one example."""
    for index, row in enumerate(rows):
        try:
            yield replace(sound(parse(row)), place=rows.place(index))
        except BadRow as fault:
            drops.drop(str(fault), rows.place(index))
        except UserError as error:
            raise UserError(f"{rows.place(index)}: {error}") from None


def text(row: Row, column: str) -> str:
    """A row's text; refuses what is missing, no text, or not writable as UTF-8. May be empty."""
    value = row.get(column)
    if value is None:
        raise BadRow(f"no `{column}`")
    return unicode(value, f"`{column}`")


def unicode(value: object, name: str) -> str:
    """``value`` if it is a text without lone surrogates, which no tokenizer takes."""
    if not isinstance(value, str):
        raise BadRow(f"{name} is not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{name} has a lone surrogate (broken Unicode)") from None
    return value


def squeeze(string: str) -> str:
    """The text with runs of spaces and tabs made one space, as the Archangel data have it."""
    return re.sub(r"[ \t]{2,}", " ", string)


def user(content: str) -> tuple[Message, ...]:
    """A prompt of one turn."""
    return (Message("user", content),)


def answers(*texts: str) -> tuple[Message, ...]:
    """Answers that are text alone."""
    return tuple(map(answered, texts))


def sound(example: Example) -> Example:
    """The example, if a model can learn from it; refuses empty turns at the end, empty answers, pairs of equals."""
    if example.text is not None:
        if not example.text.strip():
            raise BadRow("empty text")
        return example
    if not example.prompt or example.prompt[-1].role not in ("user", "tool"):
        raise BadRow("prompt does not end with a user turn")
    if example.prompt[-1].role == "user" and not example.prompt[-1].content.strip():
        raise BadRow("empty prompt")
    if any(answer.is_empty for answer in example.answers):
        raise BadRow("empty answer")
    if any(example.answers[better] == example.answers[worse] for better, worse in example.pairs):
        raise BadRow("chosen equals rejected")
    if not all(math.isfinite(score) for score in example.scores):
        raise BadRow("score is not finite")
    return example
