"""Turns of a row: how cells become them, in which order they may stand, and where a prompt ends and its answer begins.

Two turns are the same where they differ in nothing but white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from dataloaders.sources.source import BadRow, unicode
from prospect.conversation import Message
from prospect.message_forms import UnreadableError, messages

Turns = tuple[Message, ...]
_HH_TURN = re.compile(r"(?:^|\n\n)(Human:|Assistant:)\s*")


def turns(value: object, column: str, speaker: Literal["user", "assistant"] | None) -> Turns:
    """The turns that a cell holds; ``speaker``: who says a text, where the cell may be one."""
    if value is None:
        raise BadRow(f"no `{column}`")
    if isinstance(value, str):
        if speaker is None:
            raise BadRow(f"`{column}` is text that spells no list of messages, neither in JSON nor in Python")
        return (Message(speaker, unicode(value, f"`{column}`")),)
    if not isinstance(value, list | tuple | dict):
        raise BadRow(f"`{column}` is no list of messages{'' if speaker is None else ', nor text'}")
    try:
        return tuple(messages(value))
    except UnreadableError as reason:
        raise BadRow(f"`{column}` {reason}") from None


def spoken_dialogue(text: str, column: str) -> Turns:
    """The turns of a prompt that is dialogue text as in Anthropic HH, with or without the opening of the answer."""
    before, *rest = _HH_TURN.split(unicode(text, f"`{column}`").strip().removesuffix("Assistant:").rstrip())
    if before:
        raise BadRow(f"`{column}` is dialogue text that does not begin with a turn")
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return tuple(Message("user" if speaker == "Human:" else "assistant", said.strip()) for speaker, said in pairs)


def exchanges(value: object, column: str) -> Iterator[Message]:
    """LLaMA-Factory's history: earlier [question, answer] pairs."""
    for exchange in value if isinstance(value, list | tuple) else (None,):
        if not isinstance(exchange, list | tuple) or len(exchange) != 2:
            raise BadRow(f"`{column}` is no list of [question, answer]")
        question, answer = exchange
        yield Message("user", unicode(question, f"`{column}`"))
        yield Message("assistant", unicode(answer, f"`{column}`"))


def same(some: Turns, others: Turns) -> bool:
    """Whether the turns are the same ones."""
    return len(some) == len(others) and all(map(_same, some, others))


def holds_turns(talk: Turns, some: Turns) -> bool:
    """Whether ``some``, at least one, stand in ``talk``, one after the other."""
    return bool(some) and any(same(talk[i : i + len(some)], some) for i in range(len(talk) - len(some) + 1))


def merged(context: Turns, own: Turns) -> Turns:
    """A context, and the turns before an answer that may repeat it, begin with it, end with it or go on from it.

    A system turn that stands in one of them alone belongs to both.
    """
    system = context[:1] if context and context[0].role == "system" else ()
    rest = context[len(system) :]
    if own and own[0].role == "system":
        if system and not same(system, own[:1]):
            raise BadRow("two system turns that differ")
        system, own = own[:1], own[1:]
    if not rest or same(own[: len(rest)], rest) or same(own[-len(rest) :], rest):
        return system + own
    if not own or same(rest[-len(own) :], own):
        return system + rest
    if own[0].role == rest[-1].role == "user":
        raise BadRow("the prompt and the answer's own first turn differ")
    return system + rest + own


def ordered(prompt: Turns) -> Turns:
    """The prompt, if it goes from user to assistant and back after an optional system turn, tools after their calls."""
    talk = prompt[1:] if prompt and prompt[0].role == "system" else prompt
    if not talk:
        raise BadRow("no prompt")
    for before, turn in zip((None, *talk), talk, strict=False):
        if turn.role == "system":
            raise BadRow("a system turn that is not the first")
        if turn.role == "tool" and not (before and (before.role == "tool" or _calls(before))):
            raise BadRow("a tool's turn that follows no call")
        if turn.role == "user" and before and before.role != "assistant":
            raise BadRow("roles do not alternate user, assistant")
        if turn.role == "assistant" and (not before or before.role not in ("user", "tool")):
            raise BadRow("roles do not alternate user, assistant")
    return prompt


def before_answers(context: Turns, one: Turns, other: Turns) -> Turns | None:
    """The turns before two answers: both repeat them, or one of them does and the context ends likewise; else None."""
    if same(one, other):
        return merged(context, one)
    own = one or other
    repeats = bool(context) and (same(own[-len(context) :], context) or same(context[-len(own) :], own))
    return merged(context, own) if repeats and not (one and other) else None


def answered(talk: Turns) -> tuple[Turns, Message, Turns]:
    """(prompt, answer, what stands after it): the answer is the last assistant's turn that may be trained."""
    spoken = [i for i, turn in enumerate(talk) if turn.role == "assistant"]
    if not spoken:
        raise BadRow("no assistant turn")
    trained = [i for i in spoken if talk[i].trained]
    if not trained:
        raise BadRow("no assistant turn may be trained (weight, train, loss, mask)")
    return talk[: trained[-1]], talk[trained[-1]], talk[trained[-1] + 1 :]


def opening(chosen: str, rejected: str) -> str:
    """What two texts begin with, in whole words: up to the space before the first word that differs. May be empty."""
    pairs = enumerate(zip(chosen, rejected, strict=False))
    shared = next((i for i, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
    while shared and not chosen[shared - 1].isspace() and not _both_break(chosen, rejected, shared):
        shared -= 1
    return chosen[: shared - 1] if chosen[shared - 1 : shared] == " " else chosen[:shared]


def _both_break(chosen: str, rejected: str, at: int) -> bool:
    return all(text[at : at + 1].isspace() for text in (chosen, rejected))


def _same(one: Message, other: Message) -> bool:
    if one == other:
        return True
    plain = [replace(turn, content=" ".join(turn.content.split()), trained=True) for turn in (one, other)]
    return plain[0] == plain[1]


def _calls(turn: Message) -> bool:
    """Whether the turn calls a tool, be it in its text, as Hermes models write it."""
    return bool(turn.calls) or (turn.role == "assistant" and "<tool_call>" in turn.content)
