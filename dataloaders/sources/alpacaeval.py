"""AlpacaEval: instructions for evaluation, with the baseline's answers. Li et al. 2023."""

from __future__ import annotations

from collections.abc import Iterator

from dataloaders.example import Drops, Example
from dataloaders.sources.rows import Row, Rows
from dataloaders.sources.source import answers, each_row, text, user
from prospect.config.schema import Split


def read(rows: Rows, split: Split, seed: int, drops: Drops) -> Iterator[Example]:
    """One example a row; its category is the set that the instruction comes from."""
    return each_row(rows, drops, _example)


def _example(row: Row) -> Example:
    category = text(row, "dataset") if row.get("dataset") is not None else ""
    return Example("", "", user(text(row, "instruction")), answers(text(row, "output")), category=category)
