"""Anthropic HH: pairs of dialogues that differ in their last answer. Bai et al. 2022, arXiv:2204.05862.

A dialogue is one text in which turns begin with ``Human:`` or ``Assistant:``, usually but not always after an empty
line. The prompt is everything before the last answer; SFT learns the preferred one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dataloaders.example import Drops, Example
from dataloaders.sources.rows import Row, Rows
from dataloaders.sources.source import BadRow, answers, each_row, squeeze, text
from prospect.config.schema import Split
from prospect.conversation import Message

_TURN = re.compile(r"\s*(Human:|Assistant:)\s+")
_LAST_TURN = "\n\nAssistant: "


def read(rows: Rows, split: Split, seed: int, drops: Drops) -> Iterator[Example]:
    """One example a pair of dialogues."""
    return each_row(rows, drops, _example)


def _example(row: Row) -> Example:
    context, chosen = _split(text(row, "chosen"))
    other_context, rejected = _split(text(row, "rejected"))
    if context != other_context:
        raise BadRow("contexts differ")
    return Example("", "", _turns(context), answers(squeeze(chosen), squeeze(rejected)), pairs=((0, 1),))


def _split(dialogue: str) -> tuple[str, str]:
    """(context with the opening of the last turn, last answer)."""
    if dialogue.endswith(_LAST_TURN.rstrip()):
        raise BadRow("empty answer")
    before, opening, answer = dialogue.rpartition(_LAST_TURN)
    if not opening:
        raise BadRow("no assistant turn")
    return before + opening, answer


def _turns(context: str) -> tuple[Message, ...]:
    before, *rest = _TURN.split(context)
    if before:
        raise BadRow("does not begin with a turn")
    speakers, contents = rest[0:-2:2], rest[1:-2:2]  # the last turn is the one to be answered
    return tuple(
        Message("user" if speaker == "Human:" else "assistant", squeeze(content))
        for speaker, content in zip(speakers, contents, strict=True)
    )
