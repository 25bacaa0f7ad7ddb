"""The bundled demo: pairs that the rule in prospect/demo.py made and ordered."""

from __future__ import annotations

from collections.abc import Iterator

from dataloaders.example import Drops, Example
from dataloaders.sources.rows import Row, Rows
from dataloaders.sources.source import answers, each_row, text, user
from prospect.config.schema import Split


def read(rows: Rows, split: Split, seed: int, drops: Drops) -> Iterator[Example]:
    """One example a pair; its scores are the rule's."""
    return each_row(rows, drops, _example)


def _example(row: Row) -> Example:
    both = answers(text(row, "chosen"), text(row, "rejected"))
    scores = (row["score_chosen"], row["score_rejected"])
    return Example("", "", user(text(row, "prompt")), both, pairs=((0, 1),), scores=scores)
