"""Rows of a JSON file by number, without holding the file: a list of objects, or one object a line, gzipped or not.

Which of the two it is follows from the content, not from the file's name. Only the offsets of the rows are kept in
memory; a row is parsed when it is asked for.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataloaders.sources.spans import Spans
from prospect.errors import UserError

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
_COMMA = re.compile(rb"\s*,\s*")


class JsonTable(Spans):
    """A sequence of the file's objects. Whatever is wrong raises UserError with file, line and column."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        first = self._bytes[self._first : self._first + 1]
        if first not in (b"[", b"{"):
            raise UserError(
                f"{path}: is not JSON (.json, .jsonl); .parquet, .arrow, .csv, .tsv and .txt are told by their suffix"
            )
        self._is_list = first == b"["
        self._spans = self._spans_of_list(self._first) if self._is_list else self._spans_of_lines(self._first)
        if not self._spans:
            raise UserError(f"{path}: holds no rows")

    def __getitem__(self, index: int) -> dict[str, Any]:
        begin, end = self._spans[2 * index], self._spans[2 * index + 1]
        row = self._parsed(begin, end)
        if not isinstance(row, dict):
            raise UserError(f"{self.place(index)}: a row is an object {{...}}, this one is a {type(row).__name__}")
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def _spans_of_list(self, start: int) -> array[int]:
        spans, depth, end = array("Q"), 0, start + 1
        for token in _TOKEN.finditer(self._bytes, start):
            byte = self._bytes[token.start()]
            if byte in b"[{":
                depth += 1
                if depth == 2:
                    gap = self._bytes[end : token.start()]
                    if byte != ord("{") or not (_COMMA.fullmatch(gap) if spans else not gap.strip()):
                        break
                    spans.append(token.start())
            elif byte in b"]}":
                depth -= 1
                if depth == 1:
                    end = token.end()
                    spans.append(end)
                elif depth == 0:
                    if self._bytes[end : token.start()].strip() or self._bytes[token.end() :].strip():
                        break
                    return spans
            elif depth == 1:
                break
        self._parsed(start, len(self._bytes))  # says where the JSON is broken; if it is sound, a row is no object
        raise UserError(
            f"{self.path}:{self._line(end)}: row {len(spans) // 2 + 1} of the list is not an object {{...}}"
        )

    def _parsed(self, begin: int, end: int) -> Any:
        try:
            return json.loads(self._decoded(begin, end))
        except json.JSONDecodeError as error:
            column = error.colno
            if error.lineno == 1:
                column += begin - (self._bytes.rfind(b"\n", 0, begin) + 1)
            hint = "" if self._is_list else " (rows stand one object a line, or in a list [...])"
            place = f"{self.path}:{self._line(begin) + error.lineno - 1}:{column}"
            raise UserError(f"{place}: invalid JSON: {error.msg}{hint}") from None
        except RecursionError:
            raise UserError(f"{self.path}:{self._line(begin)}: JSON nested too deeply") from None
