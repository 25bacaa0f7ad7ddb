"""Plain text as rows: each line of a .txt file that is not blank is one document, ``{"text": line}``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dataloaders.sources.spans import Spans


class TextTable(Spans):
    """A sequence of the file's lines."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._spans = self._spans_of_lines(self._first)

    def __getitem__(self, index: int) -> dict[str, str]:
        return {"text": self._decoded(self._spans[2 * index], self._spans[2 * index + 1]).strip()}

    def __iter__(self) -> Iterator[dict[str, str]]:
        return (self[index] for index in range(len(self)))
