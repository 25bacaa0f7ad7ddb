"""Rows that say the same, or the opposite, of what an earlier one says are counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from dataloaders import load_examples
from dataloaders.example import Drops
from dataloaders.repeats import AGAIN, BOTH, TURNED, Repeats
from prospect.config.schema import DatasetConfig, Split
from tests.planted import plant

GOOD, BAD = {"chosen": "yes", "rejected": "no"}, {"chosen": "no", "rejected": "yes"}


def notes(folder: Path, *rows: Mapping[str, object]) -> tuple[dict[str, int], list[str]]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": "q", **row}) + "\n" for row in rows))
    drops = Drops()
    examples = list(load_examples("files", DatasetConfig(path=str(path)), Split.all, 0, drops))
    assert len({example.id for example in examples}) == len(rows)
    return dict(drops.notes), [place.rpartition(":")[2] for places in drops.places.values() for place in places]


def test_a_row_that_stands_there_twice_is_counted_with_its_line(tmp_path: Path) -> None:
    assert notes(tmp_path, GOOD, {"chosen": "maybe", "rejected": "no"}, GOOD, GOOD) == ({AGAIN: 2}, ["3", "4"])


def test_both_orders_of_a_pair_are_counted(tmp_path: Path) -> None:
    assert notes(tmp_path, GOOD, BAD, {**BAD, "prompt": "r"}) == ({TURNED: 1}, ["2"])


def test_an_answer_with_both_labels_is_counted(tmp_path: Path) -> None:
    rows = [{"completion": "yes", "label": label} for label in (True, False, True)]
    assert notes(tmp_path, *rows) == ({BOTH: 1, AGAIN: 1}, ["2", "3"])


def test_an_order_that_is_not_looked_for_goes_unsaid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, Repeats.add, " in self._seen", " in ()")
    assert notes(tmp_path, GOOD, BAD) == ({}, [])
