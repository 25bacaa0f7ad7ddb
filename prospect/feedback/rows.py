"""From scored answers to rows of feedback in the shapes that the source ``files`` tells apart by their columns.

They are TRL's conversational shapes: prompt, chosen, rejected and completion are lists of messages. ``tools`` is JSON
text, and only where a prompt has tools: as lists, descriptions of different tools would be rows of different schemas.
"""

from __future__ import annotations

import hashlib
import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prospect.feedback.answers import Group, Sampled
from prospect.feedback.options import Choice, Kind

Row = dict[str, Any]
_MESSAGES = ("prompt", "chosen", "rejected", "completion")  # columns that hold them


@dataclass(frozen=True, slots=True)
class Scored:
    """An answer with the judge's score."""

    answer: Sampled
    score: float


Scores = Sequence[tuple[Group, Sequence[Scored]]]


def rows(scores: Scores, kind: Kind, choice: Choice, threshold: float | str, seed: int) -> Iterator[Row]:
    """Rows without their provenance, in the groups' order."""
    if kind is Kind.pairwise:
        assert isinstance(threshold, float)
        yield from (
            _pair_row(group, pair) for group, some in scores if (pair := _pair(group, some, choice, threshold, seed))
        )
        return
    line = _line(scores, threshold) if kind is Kind.binary else None
    for group, some in scores:
        for scored in some:
            row = _start(group, scored) | {"completion": _turn(scored), "score": scored.score}
            yield row if line is None else row | {"label": scored.score >= line, "threshold": line}


def widest_first(found: Iterable[Row]) -> list[Row]:
    """Rows that have most columns and keys of messages first, equal ones in their order.

    ``datasets`` takes the schema from the first 10 MB of a file, and refuses a key that appears only later.
    """
    return sorted(found, key=lambda row: -len(_keys(row)))


def _keys(row: Row) -> set[tuple[str, str]]:
    inner = {(column, key) for column in _MESSAGES if column in row for message in row[column] for key in message}
    return inner | {(column, "") for column in row}


def _line(scores: Scores, threshold: float | str) -> float:
    """What divides good answers from bad ones."""
    if isinstance(threshold, float):
        return threshold
    values = [scored.score for _, some in scores for scored in some]
    return statistics.fmean(values) if threshold == "mean" else statistics.median(values)


def _pair(
    group: Group, some: Sequence[Scored], choice: Choice, threshold: float, seed: int
) -> tuple[Scored, Scored] | None:
    """(better, worse) of a prompt's answers, None where no two differ enough."""
    pairs = [(a, b) if a.score > b.score else (b, a) for a, b in itertools.combinations(some, 2)]
    far = [pair for pair in pairs if _gap(pair) > 0 and _gap(pair) >= threshold]
    if not far:
        return None
    if choice is Choice.best_worst:
        return max(far, key=_gap)
    if choice is Choice.closest:
        return min(far, key=_gap)
    return min(far, key=lambda pair: _draw(seed, group, pair))


def _gap(pair: tuple[Scored, Scored]) -> float:
    return pair[0].score - pair[1].score


def _draw(seed: int, group: Group, pair: tuple[Scored, Scored]) -> bytes:
    """A number that depends on the texts alone: other prompts and other orders change nothing."""
    texts = sorted(scored.answer.text for scored in pair)
    return hashlib.sha256("\0".join((str(seed), group.prompt_id, *texts)).encode()).digest()


def _pair_row(group: Group, pair: tuple[Scored, Scored]) -> Row:
    better, worse = pair
    return _start(group, better, worse) | {
        "chosen": _turn(better),
        "rejected": _turn(worse),
        "score_chosen": better.score,
        "score_rejected": worse.score,
    }


def _start(group: Group, *scored: Scored) -> Row:
    asked: Row = {"prompt": group.turns.rows()} | ({"tools": group.turns.tools} if group.turns.tools else {})
    samples = [one.answer.name for one in scored]
    return asked | {"prompt_id": group.prompt_id, "samples": samples, "from_dataset": group.dataset}


def _turn(scored: Scored) -> list[Row]:
    return [scored.answer.said.row()]
