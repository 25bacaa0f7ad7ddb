"""Open Assistant: trees of messages whose sibling answers people ranked. Köpf et al. 2023, arXiv:2304.07327.

English messages only. A ranking a, b, c becomes the pairs of neighbours (a, b), (b, c); SFT learns the best answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from dataloaders.example import Drops, Example
from dataloaders.sources.rows import Row, Rows
from dataloaders.sources.source import BadRow, answers, sound, squeeze, text
from prospect.config.schema import Split
from prospect.conversation import Message

REQUIRED = ("message_id", "parent_id", "text", "role", "lang", "rank")


def read(rows: Rows, split: Split, seed: int, drops: Drops) -> Iterator[Example]:
    """One example a ranked group of siblings. Two passes: the first holds ids and ranks, no texts."""
    number: dict[str, int] = {}  # message id -> row
    siblings: dict[str, dict[int, list[int]]] = {}  # parent id -> rank -> rows of answers
    for index, row in enumerate(rows):
        try:
            rank = _rank(row)
        except BadRow as fault:
            drops.drop(str(fault), rows.place(index))
            continue
        if number.setdefault(row["message_id"], index) != index:
            drops.drop("message id given twice", rows.place(index))
            continue
        if rank is not None:
            siblings.setdefault(row["parent_id"], {}).setdefault(rank, []).append(index)
    for parent, ranking in siblings.items():
        try:
            yield _example(rows, _dialogue(rows, number, parent), ranking)
        except BadRow as fault:
            for index in (index for tied in ranking.values() for index in tied):
                drops.drop(str(fault), rows.place(index))


def _rank(row: Row) -> int | None:
    """An answer's rank, None for a message that only leads to answers; refuses what is neither."""
    if row.get("lang") != "en":
        raise BadRow("not English")
    if not text(row, "text").strip():
        raise BadRow("empty message")
    text(row, "message_id")
    rank = row.get("rank")
    if row.get("role") != "assistant" or row.get("parent_id") is None or rank is None or math.isnan(rank):
        return None
    return int(rank)


def _example(rows: Rows, prompt: tuple[Message, ...], ranking: Mapping[int, list[int]]) -> Example:
    """Answers from best to worst; each is paired with the (first) one that is ranked just above it."""
    texts: list[str] = []
    pairs: list[tuple[int, int]] = []
    scores: list[float] = []
    above: dict[int, int] = {}  # rank -> its first answer
    for rank, indices in sorted(ranking.items()):
        for index in indices:
            if rank - 1 in above:
                pairs.append((above[rank - 1], len(texts)))
            above.setdefault(rank, len(texts))
            texts.append(squeeze(rows[index]["text"]))
            scores.append(-float(rank))
    if not pairs:
        raise BadRow("answer without a neighbour in rank")
    return sound(Example("", "", prompt, answers(*texts), pairs=tuple(pairs), scores=tuple(scores)))


def _dialogue(rows: Rows, number: Mapping[str, int], message_id: str) -> tuple[Message, ...]:
    """The turns from the root of the tree to the message."""
    turns: list[Message] = []
    above: str | None = message_id
    while above is not None:
        if above not in number:
            raise BadRow("an earlier message is missing or not English")
        row = rows[number[above]]
        turns.append(Message("assistant" if row["role"] == "assistant" else "user", squeeze(row["text"])))
        above = row["parent_id"]
        if len(turns) > len(number):
            raise BadRow("a message is its own ancestor")
    return tuple(reversed(turns))
