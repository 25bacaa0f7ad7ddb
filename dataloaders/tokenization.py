"""Records become token ids with a mask of trained tokens; what does not fit is cut by one rule, and counted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from dataloaders.example import Message
from dataloaders.records import Record
from prospect.batch import Role
from prospect.config.schema import Config, TrainOn, Truncation

if TYPE_CHECKING:  # transformers takes seconds to import
    from prospect.model.template import ChatFormat, Turn


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

    def is_trained(self) -> bool:
        """Whether every answer has a token to learn from."""
        return all(any(mask) for mask in self.masks)

    def row(self) -> dict[str, object]:
        """As a row of the token store."""
        return asdict(self)


def prompt_key(prompt: tuple[Message, ...]) -> int:
    """63-bit hash of a conversation: the same prompt from anywhere has the same key."""
    return _hash63("\x1e".join(f"{m.role}\x1f{m.content}" for m in prompt))


def _hash63(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1


def turns(prompt: tuple[Message, ...]) -> list[Turn]:
    """Messages in the form the chat format takes."""
    return [(m.role, m.content) for m in prompt]


def tokenize(record: Record, chat: ChatFormat, limits: Limits) -> Iterator[Tokenized]:
    """A record as ids: one, or several where SFT trains all turns and the template is not stable from turn to turn.

    A document becomes as many as its length takes.
    """
    if not record.prompt:
        yield from _document(record, chat, limits)
        return
    if limits.train_on is TrainOn.all:
        yield from _all_turns(record, chat, limits)
        return
    conversation = turns(record.prompt)
    assert chat.control is None or len(record.answers) == 1, "a control token belongs to one answer"
    encoded = [
        chat.encode_pair(chat.render(conversation, answer, role is Role.chosen))
        for answer, role in zip(record.answers, record.roles, strict=True)
    ]
    prompt, answers = encoded[0][0], [ids for _, ids, _ in encoded]
    masks = [[True] * len(ids) for ids in answers]
    yield _cut(record, record.id, prompt, answers, masks, sum(apart for *_, apart in encoded), limits, chat)


def _all_turns(record: Record, chat: ChatFormat, limits: Limits) -> Iterator[Tokenized]:
    """One sequence as long as each turn's text continues the last one's; a new one where it does not."""
    conversation = [*turns(record.prompt), ("assistant", record.answers[0])]
    pieces: list[tuple[list[int], list[int], list[bool], int]] = []  # prompt, answer with later turns, mask, apart
    for at, (role, content) in enumerate(conversation):
        if role != "assistant" or not content:
            continue
        prompt, answer, apart = chat.encode_pair(chat.render(conversation[:at], content))
        if pieces and not apart:
            start, so_far, mask, n_apart = pieces[-1]
            seen = start + so_far
            if prompt[: len(seen)] == seen:
                between = prompt[len(seen) :]
                joined = [*mask, *[False] * len(between), *[True] * len(answer)]
                pieces[-1] = (start, [*so_far, *between, *answer], joined, n_apart)
                continue
        pieces.append((prompt, answer, [True] * len(answer), int(apart)))
    for i, (prompt, answer, mask, n_apart) in enumerate(pieces):
        record_id = record.id if i == len(pieces) - 1 else f"{record.id}.{i}"
        yield _cut(record, record_id, prompt, [answer], [mask], n_apart, limits, chat)


def _document(record: Record, chat: ChatFormat, limits: Limits) -> Iterator[Tokenized]:
    """A text in pieces of max_length that do not overlap; nothing predicts the first token of a piece.

    A last piece of one token, in which nothing would be predicted, takes one more from the piece before it.
    """
    (text,) = record.answers
    ids = chat.document(text)
    cuts = [*range(0, len(ids), limits.max_length), len(ids)]
    if len(cuts) > 2 and cuts[-1] - cuts[-2] == 1:
        cuts[-2] -= 1
    for i, (start, end) in enumerate(pairwise(cuts)):
        yield Tokenized(
            id=record.id if len(cuts) == 2 else f"{record.id}.{i}",
            dataset=record.dataset,
            prompt_key=_hash63(text),
            prompt_ids=[],
            answer_ids=[ids[start:end]],
            masks=[[True] * (end - start)],
            roles=[int(role) for role in record.roles],
            prompt_cut=0,
            answers_cut=0,
            apart=0,
        )


def _cut(
    record: Record,
    record_id: str,
    prompt: list[int],
    answers: list[list[int]],
    masks: list[list[bool]],
    apart: int,
    limits: Limits,
    chat: ChatFormat,
) -> Tokenized:
    """Where prompt and longest answer exceed max_length, the prompt is cut to max_prompt_length, then the answers."""
    length = len(prompt)
    if length + max(map(len, answers)) > limits.max_length and length > limits.max_prompt_length:
        prompt = _cut_prompt(prompt, limits, record.keep, chat)
    room = limits.max_length - len(prompt)
    return Tokenized(
        id=record_id,
        dataset=record.dataset,
        prompt_key=prompt_key(record.prompt),
        prompt_ids=prompt,
        answer_ids=[ids[:room] for ids in answers],
        masks=[mask[:room] for mask in masks],
        roles=[int(Role(role)) for role in record.roles],
        prompt_cut=length - len(prompt),
        answers_cut=sum(len(ids) > room for ids in answers),
        apart=apart,
        scores=list(record.scores),
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
