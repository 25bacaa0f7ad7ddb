"""How the sources' tests read rows: through the public door, from a small file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataloaders import load_examples
from dataloaders.example import Drops, Example
from prospect.config.schema import DatasetConfig, Split

Load = Callable[..., tuple[list[Example], Drops]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """``load(source, rows or path, split=…, seed=…, **config)`` -> (examples, drops)."""

    def read(
        source: str, rows: list[Any] | Path, split: Split = Split.all, seed: int = 0, **config: Any
    ) -> tuple[list[Example], Drops]:
        path = rows if isinstance(rows, Path) else tmp_path / "rows.jsonl"
        if not isinstance(rows, Path):
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        drops = Drops()
        dataset = DatasetConfig(source=source, path=str(path), **config)
        return list(load_examples(source, dataset, split, seed, drops)), drops

    return read
