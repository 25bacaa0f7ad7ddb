"""MT-Bench in FastChat's format: questions of two turns, the second about the answer. Zheng et al. 2023."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dataloaders.example import Drops, Example
from dataloaders.sources.rows import Row, Rows
from dataloaders.sources.source import each_row, user
from prospect.config.schema import Split
from prospect.errors import UserError

REQUIRED = ("question_id", "category", "turns")
TEMPERATURES = {  # by category, as in FastChat; others have the configured one
    **{"writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0},
    **{"stem": 0.1, "humanities": 0.1, "arena-hard-200": 0.0},
}


@dataclass(frozen=True, slots=True)
class Question:
    """One question; ``id`` is as the file has it, a number as a rule. ``temperature``: what the row itself asks for."""

    id: Any
    category: str
    turns: tuple[str, ...]
    temperature: float | None


def read(rows: Rows, split: Split, seed: int, drops: Drops) -> Iterator[Example]:
    """Each question's first turn as a prompt."""
    return each_row(rows, drops, lambda row: _example(_question(row)))


def questions(rows: Rows) -> list[Question]:
    """All questions. A benchmark without some of its questions is another one: what is wrong with a row is an error."""
    found: dict[str, Question] = {}
    for index, row in enumerate(rows):
        try:
            question = _question(row)
        except UserError as error:
            raise UserError(f"{rows.place(index)}: {error}") from None
        if str(question.id) in found:
            raise UserError(f"{rows.place(index)}: question_id {question.id} stands there twice")
        found[str(question.id)] = question
    return list(found.values())


def _question(row: Row) -> Question:
    turns, wanted = row.get("turns"), row.get("required_temperature")
    if not isinstance(turns, list) or not turns or not all(isinstance(x, str) and x.strip() for x in turns):
        raise UserError("`turns` is no list of texts")
    if row.get("question_id") is None:
        raise UserError("no `question_id`")
    if wanted is not None and (isinstance(wanted, bool) or not isinstance(wanted, int | float) or wanted < 0):
        raise UserError(f"`required_temperature` is {wanted!r}; write a number")
    return Question(row["question_id"], str(row.get("category", "")), tuple(turns), wanted)


def _example(question: Question) -> Example:
    return Example("", "", user(question.turns[0]), (), imitate=None, category=question.category)
