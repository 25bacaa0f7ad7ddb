"""Examples become records, the unit that a batch never splits: an answer, a pair, a labelled answer, or a text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from dataloaders.example import Example
from prospect.batch import Role
from prospect.conversation import Conversation, Message, answered


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
    answers: tuple[Message, ...]
    roles: tuple[Role, ...]
    keep: Literal["start", "end"]
    scores: tuple[float, ...] = ()  # one an answer, or none at all
    tools: str = ""  # JSON text of those on offer
    place: str = field(default="", compare=False)  # the row's, for people

    @property
    def conversation(self) -> Conversation:
        """The prompt with its tools."""
        return Conversation(self.prompt, self.tools)


def records(example: Example, kind: RecordKind) -> Iterator[Record]:
    """All records of one kind that an example gives; none where its feedback is of another nature.

    Pairs serve as labelled answers (the better is desirable, the worse is not); a verdict on single answers makes no
    pair.
    """
    if kind is RecordKind.texts:
        if example.text is not None:
            text = (answered(example.text),)
            yield Record(example.id, example.dataset, (), text, (Role.chosen,), example.keep, place=example.place)
        return
    for i, (indices, roles) in enumerate(_TAKE[kind](example)):
        answers = tuple(example.answers[k] for k in indices)
        scores = tuple(example.scores[k] for k in indices) if example.scores else ()
        suffix = f"/{i}" if i or kind is RecordKind.labelled else ""
        what = (f"{example.id}{suffix}", example.dataset, example.prompt, answers, roles, example.keep, scores)
        yield Record(*what, tools=example.tools, place=example.place)


_Piece = tuple[tuple[int, ...], tuple[Role, ...]]  # answers by index, and what they are


def _to_imitate(example: Example) -> Iterator[_Piece]:
    if example.imitate is not None:
        yield (example.imitate,), (Role.chosen,)


def _pairs(example: Example) -> Iterator[_Piece]:
    for better, worse in example.pairs:
        yield (better, worse), (Role.chosen, Role.rejected)


def _labelled(example: Example) -> Iterator[_Piece]:
    for better, worse in example.pairs:
        yield (better,), (Role.chosen,)
        yield (worse,), (Role.rejected,)
    if not example.pairs:
        for i, desirable in enumerate(example.desirable):
            yield (i,), (Role.chosen if desirable else Role.rejected,)


_TAKE = {RecordKind.answers: _to_imitate, RecordKind.pairs: _pairs, RecordKind.labelled: _labelled}
