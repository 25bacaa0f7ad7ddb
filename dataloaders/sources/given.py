"""A row by what its columns mean. What is asked for counts as read; what else it holds is told.

Two columns that hold one meaning are refused, unless they say the same or the user has said which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from dataloaders.sources.columns import Layout, folded, is_spelled, pruned
from dataloaders.sources.dialogue import Turns, spoken_dialogue, turns
from dataloaders.sources.rows import Row, Rows
from dataloaders.sources.source import BadRow
from prospect.errors import UserError
from prospect.message_forms import (
    UnreadableError,
    holds,
    is_conversation,
    messages,
    read_stored,
    read_tools,
    unread_keys,
)

_PROVENANCE = (  # what label.py says of where its rows come from
    *("prompt_id", "samples", "from_dataset", "judge", "judge_answered_as", "judge_prompt", "endpoint", "seed"),
    *("feedback", "source_files", "threshold"),
)
_HH = "\n\nHuman:"
_MEDIA = ("image", "images", "audio", "audios", "video", "videos")


@dataclass(slots=True)
class Given:
    """One row, by meaning."""

    layout: Layout
    row: Row
    notes: list[str] = field(default_factory=list)  # what of it is read otherwise than it stands, for people
    keys: set[str] = field(default_factory=set)  # of messages, not read
    _read: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, layout: Layout, rows: Rows, row: Row) -> Given:
        """A row of these rows.

        Raises:
            BadRow: it holds images or sounds.
        """
        row = pruned(row, rows)
        for column, value in row.items():
            if folded(column) in _MEDIA and holds(value):
                raise BadRow(f"has `{column}`: Prospect trains on text alone")
        return cls(layout, row)

    def holds(self, meaning: str) -> bool:
        """Whether the row says something of it."""
        return self.layout.holds(self.row, meaning)

    def get(self, meaning: str) -> Any:
        """What the row says of it; a text that spells a conversation as what it spells.

        Raises:
            UserError: two columns say it, and not the same.
        """
        there = self._there(meaning)
        if any(_comparable(self.row[column]) != _comparable(self.row[there[0]]) for column in there[1:]):
            raise self.layout.doubt(f"the {meaning}", *((meaning, column) for column in there[:2]))
        self._read.update(there)
        value = next((self.row[c] for c in there or self.layout.columns[meaning] if c in self.row), None)
        if isinstance(value, str) and meaning in self.layout.spelled:
            spelled = read_stored(value)
            return value if spelled is None else spelled
        return value

    def name(self, meaning: str) -> str:
        """How the file calls what the row says of it."""
        return self.layout.name(meaning, next(iter(self._there(meaning)), None))

    def turns(self, meaning: str, speaker: Literal["user", "assistant"] | None = None) -> Turns:
        """The turns that the row says of it."""
        value = self.get(meaning)
        if isinstance(value, int | float) and speaker == "assistant":  # the answer of a sum
            value = str(value)
        if isinstance(value, str) and meaning in self.layout.spelled:
            speaker = None
        if isinstance(value, str) and value.startswith(_HH):
            if meaning != "prompt":
                key = self.layout.key
                raise UserError(f"this is dialogue text as in Anthropic HH; read it with {key}.source=hh")
            self.note(f"`{self.name(meaning)}` is dialogue text as in Anthropic HH: it is read as its turns")
            return spoken_dialogue(value, self.name(meaning))
        found = turns(value, self.name(meaning), speaker)
        if not isinstance(value, str):
            self.keys.update(unread_keys(value))
        elif is_spelled(read_stored(value)):
            self.note(f"`{self.name(meaning)}` spells messages, but not in each row: it is read as text")
        return found

    def tools(self) -> str:
        """The tools on offer, as JSON text."""
        try:
            return read_tools(self.get("tools"))
        except UnreadableError as reason:
            raise BadRow(str(reason)) from None

    def skip(self, meaning: str) -> None:
        """Leave out what was asked for: it is not read after all."""
        self._read.difference_update(self.layout.columns[meaning])

    def note(self, what: str) -> None:
        """Say of the row that something of it is read otherwise than it stands."""
        self.notes.append(what)

    def unread(self) -> Iterable[str]:
        """Columns that hold something nobody asked for."""
        known = {*self._read, *(_PROVENANCE if "judge_answered_as" in self.row else ())}
        yield from (column for column, value in self.row.items() if column not in known and holds(value))
        yield from self.layout.shadowed

    def _there(self, meaning: str) -> list[str]:
        return [column for column in self.layout.columns[meaning] if holds(self.row.get(column))]


@dataclass(slots=True)
class Unread:
    """What rows hold that nobody reads, counted."""

    columns: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    place: str = ""  # of the first row

    def add(self, row: Given, place: str) -> None:
        """Count one row."""
        names = list(row.unread())
        self.columns.update(names)
        self.keys.update(row.keys)
        if names or row.keys:
            self.rows += 1
            self.place = self.place or place

    def line(self) -> str:
        """All names with the number of rows that have them."""
        kinds = (("column", self.columns), ("message key", self.keys))
        parts = [
            f"{kind}{'s' if len(names) > 1 else ''} {', '.join(f'`{name}` ({n})' for name, n in names.most_common())}"
            for kind, names in kinds
            if names
        ]
        return f"not read: {'; '.join(parts)}"


def _comparable(value: object) -> object:
    """What two columns of one meaning are compared by: texts without regard to white space, messages to their form."""
    if isinstance(value, str):
        return " ".join(value.split())
    try:
        return tuple(messages(value)) if is_conversation(value) else value
    except UnreadableError:
        return value
