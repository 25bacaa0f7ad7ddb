"""One prompt with the answers people (or a model, or a rule) judged, or one text: what every dataset becomes first.

Chat messages throughout, never strings with glued prefixes: how a conversation is written down for a model is the chat
template's business (prospect/model/template.py), not the data's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt, its answers, and what is known about them.

    ``prompt`` ends with a user turn. Feedback refers to ``answers`` by index: ``pairs`` holds (better, worse),
    ``desirable`` one verdict an answer (empty: none given), ``scores`` one number an answer (empty: none given),
    ``imitate`` the answer that SFT learns (None: no answer here deserves it). An example with a ``text`` is a document
    to continue pre-training on; it has neither prompt nor answers.
    """

    id: str
    dataset: str
    prompt: tuple[Message, ...]
    answers: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    desirable: tuple[bool, ...] = ()
    scores: tuple[float, ...] = ()
    imitate: int | None = 0
    keep: Literal["start", "end"] = "end"  # which end of an over-long prompt survives
    text: str | None = None
    category: str = ""  # a finer origin than the dataset (AlpacaEval's `dataset` column, SHP's domain)


@dataclass(slots=True)
class Drops:
    """Rows that a source left out, counted by reason; a dataset never loses a row in silence."""

    rows_read: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)  # where the first few of each reason stand

    def drop(self, reason: str, place: str = "") -> None:
        """Count one row that is left out. ``reason`` is read by users: "empty answer", "contexts differ"."""
        self.reasons[reason] += 1
        if place and self.reasons[reason] <= 3:
            self.places.setdefault(reason, []).append(place)
