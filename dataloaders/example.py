"""One prompt with the answers people (or a model, or a rule) judged, or one text: what every dataset becomes first.

Chat messages throughout, never strings with glued prefixes: how a conversation is written down for a model is the chat
template's business (prospect/model/template.py), not the data's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from prospect.conversation import Conversation, Message


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt, its answers, and what is known about them.

    ``prompt`` ends with a user's or a tool's turn; ``tools`` is JSON text of those on offer. Feedback refers to
    ``answers`` by index: ``pairs`` holds (better, worse), ``desirable`` one verdict an answer (empty: none given),
    ``scores`` one number an answer (empty: none given), ``imitate`` the answer that SFT learns (None: no answer here
    deserves it). An example with a ``text`` is a document to continue pre-training on; it has neither prompt nor
    answers.
    """

    id: str
    dataset: str
    prompt: tuple[Message, ...]
    answers: tuple[Message, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    desirable: tuple[bool, ...] = ()
    scores: tuple[float, ...] = ()
    imitate: int | None = 0
    keep: Literal["start", "end"] = "end"  # which end of an over-long prompt survives
    text: str | None = None
    tools: str = ""
    category: str = ""  # a finer origin than the dataset (AlpacaEval's `dataset` column, SHP's domain)
    place: str = field(default="", compare=False)  # the row's, for people

    @property
    def conversation(self) -> Conversation:
        """The prompt with its tools."""
        return Conversation(self.prompt, self.tools)


_PLACES = 3  # of each reason, how many are named


@dataclass(slots=True)
class Drops:
    """Rows that a source left out, counted by reason, and what is said of those it kept: no row is lost in silence."""

    rows_read: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)  # where the first few of each reason and note stand

    def drop(self, reason: str, place: str = "") -> None:
        """Count one row that is left out. ``reason`` is read by users: "empty answer", "contexts differ"."""
        self.reasons[reason] += 1
        self._place(reason, place)

    def note(self, what: str, place: str = "", rows: int = 1) -> None:
        """Count rows that are kept, though something of them is not as it stands: "column `meta` is not read"."""
        self.notes[what] += rows
        self._place(what, place)

    def add(self, other: Drops) -> None:
        """Take over what was counted elsewhere."""
        self.reasons.update(other.reasons)
        self.notes.update(other.notes)
        for what, places in other.places.items():
            for place in places:
                self._place(what, place)

    def _place(self, what: str, place: str) -> None:
        known = self.places.setdefault(what, [])
        if place and place not in known and len(known) < _PLACES:
            known.append(place)
