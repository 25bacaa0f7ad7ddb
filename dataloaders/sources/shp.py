"""Stanford Human Preferences: Reddit posts with two comments each, ordered by votes. Ethayarajh et al. 2022.

For training, pairs whose scores differ by less than a factor of 2 are left out, and at most 5 pairs of a post are kept
(drawn by the seed), as the data's authors recommend. SFT learns a post's first comment: which is best is not known.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator

from dataloaders.example import Drops, Example
from dataloaders.sources.rows import Row, Rows
from dataloaders.sources.source import BadRow, answers, sound, squeeze, text, user
from prospect.config.schema import Split

REQUIRED = ("history", "human_ref_A", "human_ref_B", "score_A", "score_B", "labels")
MIN_SCORE_RATIO = 2.0
MAX_PAIRS = 5


def read(rows: Rows, split: Split, seed: int, drops: Drops) -> Iterator[Example]:
    """One example a post, with all its pairs. Two passes: texts are read again rather than held."""
    min_ratio, max_pairs = (MIN_SCORE_RATIO, MAX_PAIRS) if split is Split.train else (1.0, None)
    posts: dict[bytes, list[int]] = {}
    for index, row in enumerate(rows):
        try:
            _check(row, min_ratio)
        except BadRow as fault:
            drops.drop(str(fault), rows.place(index))
        else:
            posts.setdefault(hashlib.blake2b(row["history"].encode(), digest_size=8).digest(), []).append(index)
    for key, indices in posts.items():
        members = [rows[index] for index in indices]
        kept = members
        if max_pairs and len(members) > max_pairs:
            kept = random.Random(f"{seed} {key.hex()}").sample(members, max_pairs)
            drops.reasons[f"more than {max_pairs} pairs of one post"] += len(members) - max_pairs
        yield _example(members[0], kept)


def _check(row: Row, min_ratio: float) -> None:
    pair = _example(row, [row])
    sound(pair)
    if min(pair.scores) <= 0:
        raise BadRow("score is not positive")
    if max(pair.scores) / min(pair.scores) < min_ratio:
        raise BadRow(f"scores differ by less than a factor of {min_ratio:g}")


def _example(first: Row, pairs: list[Row]) -> Example:
    """The example of one post: its first comment, then those of ``pairs``, each once."""
    known = {squeeze(text(first, "human_ref_A")): _score(first, "score_A")}
    ordered = []
    for row in pairs:
        sides = [squeeze(text(row, f"human_ref_{side}")) for side in "AB"]
        known.update(zip(sides, (_score(row, "score_A"), _score(row, "score_B")), strict=True))
        ordered.append(sides if _a_is_better(row) else sides[::-1])
    place = {answer: index for index, answer in enumerate(known)}
    return Example(
        *("", "", user(squeeze(text(first, "history"))), answers(*known)),
        pairs=tuple((place[better], place[worse]) for better, worse in ordered),
        scores=tuple(known.values()),
        keep="start",
        category=text(first, "domain") if first.get("domain") is not None else "",
    )


def _a_is_better(row: Row) -> bool:
    if row.get("labels") not in (0, 1):
        raise BadRow("`labels` is neither 0 nor 1")
    return bool(row["labels"] == 1)


def _score(row: Row, column: str) -> float:
    score = row.get(column)
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
        raise BadRow(f"`{column}` is no finite number")
    return float(score)
