"""UltraFeedback, binarized: GPT-4's scores made pairs. Cui et al. 2023, arXiv:2310.01377; Tunstall et al. 2023."""

from __future__ import annotations

from collections.abc import Iterator

from dataloaders.example import Drops, Example
from dataloaders.sources.rows import Row, Rows
from dataloaders.sources.source import BadRow, answers, each_row, squeeze, text, unicode, user
from prospect.config.schema import Split


def read(rows: Rows, split: Split, seed: int, drops: Drops) -> Iterator[Example]:
    """One example a row: a prompt of one turn, and the last turn of two conversations."""
    return each_row(rows, drops, _example)


def _example(row: Row) -> Example:
    both = answers(_last_turn(row, "chosen"), _last_turn(row, "rejected"))
    return Example("", "", user(squeeze(text(row, "prompt"))), both, pairs=((0, 1),), keep="start")


def _last_turn(row: Row, column: str) -> str:
    turns = row.get(column)
    if not turns or not isinstance(turns, list) or not isinstance(turns[-1], dict):
        raise BadRow(f"`{column}` is no list of messages")
    return squeeze(unicode(turns[-1].get("content"), f"content in `{column}`"))
