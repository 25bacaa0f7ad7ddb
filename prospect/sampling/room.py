"""Room for a prompt and its answer in a model's positions, and what is left of a conversation that has too little.

A prompt is cut only where model and answer leave it no room: first earlier turns go, whole, then the start of the last
question. What is asked is always written by the chat template, with its marks of who speaks.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from prospect.config.schema import Config
from prospect.conversation import Conversation
from prospect.errors import RefusedError, UserError
from prospect.logs import log
from prospect.model.template import ChatFormat


@dataclass(frozen=True, slots=True)
class Room:
    """Tokens of the longest answer, and positions that a model has for it and its prompt; None: without end."""

    max_new_tokens: int
    positions: int | None

    @classmethod
    def of(cls, model: PreTrainedModel, max_new_tokens: int) -> Room:
        """As the model's configuration says.

        Raises:
            UserError: the answer alone would take all positions.
        """
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if positions is not None and max_new_tokens >= positions:
            raise UserError(
                f"max_new_tokens: {max_new_tokens} leave no room for a prompt in the model's {positions} positions; "
                f"++max_new_tokens={positions // 2} leaves half of them"
            )
        return cls(max_new_tokens, positions)

    @property
    def prompt(self) -> int | None:
        """Tokens that a prompt may have."""
        return None if self.positions is None else self.positions - self.max_new_tokens


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt as ids; ``cut``: how many tokens of it had no room."""

    ids: tuple[int, ...]
    cut: int = 0


def longest_answer(config: Config) -> int:
    """Tokens that an answer may have: as configured, else what training has left for answers."""
    return config.max_new_tokens or config.model.max_length - config.model.max_prompt_length


def fit_all(chat: ChatFormat, talks: Mapping[str, Conversation], room: Room) -> dict[str, Asked]:
    """The prompts of conversations, by their names; says how many are cut."""
    found = {key: fit(chat, talk, room.prompt) for key, talk in talks.items()}
    cut = [key for key, asked in found.items() if asked.cut]
    if cut:
        first = found[cut[0]]
        log.warning(
            "prompts: %d of %d are cut to their last turns: beside answers of up to %d tokens (max_new_tokens) the "
            "model's %d positions have no room for more (%s: %d of %d tokens are left)",
            len(cut),
            len(found),
            room.max_new_tokens,
            room.positions,
            cut[0],
            len(first.ids),
            len(first.ids) + first.cut,
        )
    return found


def fit(chat: ChatFormat, talk: Conversation, room: int | None) -> Asked:
    """A conversation's prompt in at most ``room`` tokens."""
    whole = chat.encode(chat.prompt(talk))
    if room is None or len(whole) <= room:
        return Asked(tuple(whole))
    shortest = talk
    for shortest in _shorter(talk):
        ids = _ids(chat, shortest)
        if ids is not None and len(ids) <= room:
            return Asked(tuple(ids), len(whole) - len(ids))
    ids = _cut_question(chat, shortest, room) or _end_of(chat, whole, room)
    return Asked(tuple(ids), len(whole) - len(ids))


def _shorter(talk: Conversation) -> Iterator[Conversation]:
    """The conversation from each later question on, with what the system says; at last from the last one, without."""
    messages = talk.messages
    system = messages[:1] if messages[0].role == "system" else ()
    starts = [i for i, message in enumerate(messages) if message.role == "user"]
    for start in starts[1:]:
        yield replace(talk, messages=(*system, *messages[start:]))
    if system and starts:
        yield replace(talk, messages=messages[starts[-1] :])


def _cut_question(chat: ChatFormat, talk: Conversation, room: int) -> list[int] | None:
    """The prompt with as much of the end of its last question as there is room for; None where there is for nothing."""
    asked = [i for i, message in enumerate(talk.messages) if message.role == "user"]
    if not asked:
        return None
    at = asked[-1]
    before, question, after = talk.messages[:at], talk.messages[at], talk.messages[at + 1 :]

    def without(start: int) -> list[int] | None:
        left = replace(question, content=question.content[start:])
        ids = _ids(chat, replace(talk, messages=(*before, left, *after)))
        return ids if ids is not None and len(ids) <= room else None

    words = [word.start() for word in re.finditer(r"(?<!\S)\S", question.content)]
    for starts in (words, range(words[-1] if words else 0, len(question.content))):
        first = bisect.bisect_left(starts, True, key=lambda start: without(start) is not None)
        if first < len(starts):
            return without(starts[first])
    return None


def _end_of(chat: ChatFormat, ids: list[int], room: int) -> list[int]:
    """The last tokens, where not even the marks of one turn have room: what asks for the answer stays."""
    bos = chat.tokenizer.bos_token_id
    return [bos, *ids[len(ids) - room + 1 :]] if bos is not None and ids[0] == bos else ids[-room:]


def _ids(chat: ChatFormat, talk: Conversation) -> list[int] | None:
    try:
        return chat.encode(chat.prompt(talk))
    except RefusedError:  # a template may want what was left out
        return None
