"""Examples become records, the unit that a batch never splits: an answer, a pair, a labelled answer, or a text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from dataloaders.example import Example, Message
from prospect.batch import Role


class RecordKind(StrEnum):
    """What a trainer trains on; declared by its class."""

    answers = "answers"  # one answer a prompt, to imitate
    pairs = "pairs"  # a better and a worse answer to one prompt
    labelled = "labelled"  # one answer with a verdict: desirable or not
    texts = "texts"  # a document: no prompt, and its text as the one answer


@dataclass(frozen=True, slots=True)
class Record:
    """A prompt with the answers that are trained on together, and what each of them is."""

    id: str
    dataset: str
    prompt: tuple[Message, ...]
    answers: tuple[str, ...]
    roles: tuple[Role, ...]
    keep: Literal["start", "end"]


def records(example: Example, kind: RecordKind) -> Iterator[Record]:
    """All records of one kind that an example gives; none where its feedback is of another nature.

    Pairs serve as labelled answers (the better is desirable, the worse is not); a verdict on single answers makes no
    pair.
    """
    for i, (answers, roles) in enumerate(_TAKE[kind](example)):
        suffix = f"/{i}" if i or kind is RecordKind.labelled else ""
        yield Record(f"{example.id}{suffix}", example.dataset, example.prompt, answers, roles, example.keep)


_Piece = tuple[tuple[str, ...], tuple[Role, ...]]


def _to_imitate(example: Example) -> Iterator[_Piece]:
    if example.imitate is not None:
        yield (example.answers[example.imitate],), (Role.chosen,)


def _pairs(example: Example) -> Iterator[_Piece]:
    for better, worse in example.pairs:
        yield (example.answers[better], example.answers[worse]), (Role.chosen, Role.rejected)


def _labelled(example: Example) -> Iterator[_Piece]:
    for better, worse in example.pairs:
        yield (example.answers[better],), (Role.chosen,)
        yield (example.answers[worse],), (Role.rejected,)
    if not example.pairs:
        for answer, desirable in zip(example.answers, example.desirable, strict=False):
            yield (answer,), (Role.chosen if desirable else Role.rejected,)


def _texts(example: Example) -> Iterator[_Piece]:
    if example.text is not None:
        yield (example.text,), (Role.chosen,)


_TAKE = {
    RecordKind.answers: _to_imitate,
    RecordKind.pairs: _pairs,
    RecordKind.labelled: _labelled,
    RecordKind.texts: _texts,
}
