"""Records become token ids with a mask of trained tokens; what does not fit is cut by one rule, and counted.

A record that its template or the cut leaves nothing to learn from is dropped, under a reason that people read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from dataloaders.example import Drops, Example
from dataloaders.records import Record, RecordKind, records
from prospect.batch import Role
from prospect.config.schema import Config, TrainOn, Truncation
from prospect.conversation import Conversation
from prospect.errors import RefusedError, UnwrittenError

if TYPE_CHECKING:  # transformers takes seconds to import
    from prospect.model.template import ChatFormat


@dataclass(frozen=True, slots=True)
class Limits:
    """How long sequences may be, and which turns are trained."""

    max_length: int
    max_prompt_length: int
    truncation_mode: Truncation
    train_on: TrainOn = TrainOn.last

    @classmethod
    def of(cls, config: Config) -> Limits:
        """From a run's configuration; only SFT has ``train_on``."""
        train_on = getattr(config.loss, "train_on", TrainOn.last)
        return cls(config.model.max_length, config.model.max_prompt_length, config.truncation_mode, train_on)


@dataclass(frozen=True, slots=True)
class Tokenized:
    """One record as ids. ``masks`` says which answer tokens are trained; the prompt's never are."""

    id: str
    dataset: str
    prompt_key: int  # 63-bit hash of the prompt's messages, or of a document's text
    prompt_ids: list[int]
    answer_ids: list[list[int]]
    masks: list[list[bool]]
    roles: list[int]
    prompt_cut: int  # tokens cut from the prompt
    answers_cut: int  # answers that lost their end
    apart: int  # answers whose tokens do not continue the prompt's: tokenized apart
    scores: list[float] = field(default_factory=list)  # one an answer, or none at all
    length: int = 0  # tokens of the prompt and the longest answer before either was cut
    notes: list[str] = field(default_factory=list)  # what the template leaves out of the record, for people

    @property
    def fault(self) -> str | None:
        """Why nothing can be learned from the record, if so."""
        if not all(any(mask) for mask in self.masks):
            return "records without a trained token after truncation"
        if len(self.answer_ids) == 2 and self.answer_ids[0] == self.answer_ids[1]:
            how = "once both are cut" if self.answers_cut else "as the template writes them"
            return f"pairs in which chosen equals rejected {how}"
        return None

    def row(self) -> dict[str, object]:
        """As a row of the token store."""
        return asdict(self)


def prompt_key(prompt: Conversation) -> int:
    """63-bit hash of a conversation: the same prompt from anywhere has the same key."""
    turns = [f"{m.role}\x1f{m.content if m.is_plain else json.dumps(m.row())}" for m in prompt.messages]
    return _hash63("\x1e".join([*turns, *([prompt.tools] if prompt.tools else [])]))


def _hash63(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1


def trainable(
    example: Example, kind: RecordKind, chat: ChatFormat, limits: Limits, drops: Drops
) -> Iterator[tuple[Record, Tokenized]]:
    """Each record of an example with its ids; what nothing can be learned from is counted in ``drops``."""
    for record in records(example, kind):
        try:
            items = list(tokenize(record, chat, limits))
        except UnwrittenError as reason:
            drops.drop(str(reason), record.place)
            continue
        except RefusedError as error:
            drops.drop(error.reason, record.place)
            continue
        for item in items:
            for note in item.notes:
                drops.note(note, record.place)
            if item.fault is not None:
                drops.drop(item.fault, record.place)
            else:
                yield record, item


def tokenize(record: Record, chat: ChatFormat, limits: Limits) -> Iterator[Tokenized]:
    """A record as ids: one, or several where SFT trains all turns and the template is not stable from turn to turn.

    A document becomes as many as its length takes.

    Raises:
        UnwrittenError: the template writes nothing of an answer, or not what it calls.
        RefusedError: it refuses the conversation.
    """
    if not record.prompt:
        yield from _document(record, chat, limits)
        return
    if limits.train_on is TrainOn.all:
        yield from _all_turns(record, chat, limits)
        return
    assert chat.control is None or len(record.answers) == 1, "a control token belongs to one answer"
    rendered = [
        chat.render(record.conversation, answer, role is Role.chosen)
        for answer, role in zip(record.answers, record.roles, strict=True)
    ]
    encoded = [chat.encode_pair(pair) for pair in rendered]
    prompt, answers = encoded[0][0], [ids for _, ids, _ in encoded]
    masks = [[True] * len(ids) for ids in answers]
    notes = list(dict.fromkeys(note for pair in rendered for note in pair.notes))
    yield _cut(record, record.id, prompt, answers, masks, sum(apart for *_, apart in encoded), notes, limits, chat)


def _all_turns(record: Record, chat: ChatFormat, limits: Limits) -> Iterator[Tokenized]:
    """One sequence as long as each turn's text continues the last one's; a new one where it does not."""
    turns = (*record.prompt, record.answers[0])
    pieces: list[_Piece] = []
    for at, turn in enumerate(turns):
        if turn.role != "assistant" or turn.is_empty or not turn.trained:
            continue
        rendered = chat.render(Conversation(turns[:at], record.tools), turn)
        prompt, answer, apart = chat.encode_pair(rendered)
        if not (pieces and not apart and pieces[-1].goes_on(prompt, answer, rendered.notes)):
            pieces.append(_Piece(prompt, answer, [True] * len(answer), int(apart), list(rendered.notes)))
    for i, piece in enumerate(pieces):
        record_id = record.id if i == len(pieces) - 1 else f"{record.id}.{i}"
        answer_mask = ([piece.answer], [piece.mask])
        yield _cut(record, record_id, piece.prompt, *answer_mask, piece.apart, piece.notes, limits, chat)


@dataclass(slots=True)
class _Piece:
    """A sequence of several turns that grows: a prompt, an answer with the turns after it, and its mask."""

    prompt: list[int]
    answer: list[int]
    mask: list[bool]
    apart: int
    notes: list[str]

    def goes_on(self, prompt: list[int], answer: list[int], notes: Sequence[str]) -> bool:
        """Take a later answer in, where its prompt begins with all of this piece; whether that was so."""
        seen = self.prompt + self.answer
        if prompt[: len(seen)] != seen:
            return False
        between = prompt[len(seen) :]
        self.mask += [*[False] * len(between), *[True] * len(answer)]
        self.answer += [*between, *answer]
        self.notes += [note for note in notes if note not in self.notes]
        return True


def _document(record: Record, chat: ChatFormat, limits: Limits) -> Iterator[Tokenized]:
    """A text in pieces of max_length that do not overlap; nothing predicts the first token of a piece.

    A last piece of one token, in which nothing would be predicted, takes one more from the piece before it.
    """
    (document,) = record.answers
    ids = chat.document(document.content)
    cuts = [*range(0, len(ids), limits.max_length), len(ids)]
    if len(cuts) > 2 and cuts[-1] - cuts[-2] == 1:
        cuts[-2] -= 1
    for i, (start, end) in enumerate(pairwise(cuts)):
        yield Tokenized(
            id=record.id if len(cuts) == 2 else f"{record.id}.{i}",
            dataset=record.dataset,
            prompt_key=_hash63(document.content),
            prompt_ids=[],
            answer_ids=[ids[start:end]],
            masks=[[True] * (end - start)],
            roles=[int(role) for role in record.roles],
            prompt_cut=0,
            answers_cut=0,
            apart=0,
            length=end - start,
        )


def _cut(
    record: Record,
    record_id: str,
    prompt: list[int],
    answers: list[list[int]],
    masks: list[list[bool]],
    apart: int,
    notes: list[str],
    limits: Limits,
    chat: ChatFormat,
) -> Tokenized:
    """Where prompt and longest answer exceed max_length, the prompt is cut to max_prompt_length, then the answers."""
    length, longest = len(prompt), max(map(len, answers))
    if length + longest > limits.max_length and length > limits.max_prompt_length:
        prompt = _cut_prompt(prompt, limits, record.keep, chat)
    room = limits.max_length - len(prompt)
    return Tokenized(
        id=record_id,
        dataset=record.dataset,
        prompt_key=prompt_key(record.conversation),
        prompt_ids=prompt,
        answer_ids=[ids[:room] for ids in answers],
        masks=[mask[:room] for mask in masks],
        roles=[int(Role(role)) for role in record.roles],
        prompt_cut=length - len(prompt),
        answers_cut=sum(len(ids) > room for ids in answers),
        apart=apart,
        scores=list(record.scores),
        length=length + longest,
        notes=notes,
    )


def _cut_prompt(prompt: list[int], limits: Limits, keep: Literal["start", "end"], chat: ChatFormat) -> list[int]:
    at_end = keep == "end" if limits.truncation_mode is Truncation.auto else limits.truncation_mode == "keep_end"
    if not at_end:
        start = limits.max_prompt_length - (chat.control is not None)  # the control token is the prompt's last
        return prompt[:start] + prompt[len(prompt) - (limits.max_prompt_length - start) :]
    bos = chat.tokenizer.bos_token_id
    if bos is not None and prompt[0] == bos:
        return [bos, *prompt[len(prompt) - limits.max_prompt_length + 1 :]]
    return prompt[-limits.max_prompt_length :]
