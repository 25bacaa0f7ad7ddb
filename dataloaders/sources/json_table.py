"""Rows of a JSON file by number, without holding the file: a list of objects, or one object a line, gzipped or not.

Which of the two it is follows from the content, not from the file's name. Only the offsets of the rows are kept in
memory; a row is parsed when it is asked for.
"""

from __future__ import annotations

import gzip
import json
import mmap
import re
import shutil
import tempfile
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prospect.errors import MachineError, UserError

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
_COMMA = re.compile(rb"\s*,\s*")
_NEWLINE = re.compile(rb"\n")
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class JsonTable:
    """A sequence of the file's objects. Whatever is wrong raises UserError with file, line and column."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = _mapped(path)
        if self._bytes[:2] in _UTF16_BOMS:
            raise UserError(f"{path}: is UTF-16; save it as UTF-8")
        self._counted = (0, 1)  # an offset, and the line it is on: places are asked for in order
        start = len(_UTF8_BOM) if self._bytes[:3] == _UTF8_BOM else 0
        first = re.compile(rb"\S").search(self._bytes, start)
        if not first:
            raise UserError(f"{path}: holds nothing but white space")
        if first[0] not in b"[{":
            raise UserError(
                f"{path}: is not JSON (.json, .jsonl); .parquet, .arrow, .csv and .tsv are told by their suffix"
            )
        self._is_list = first[0] == b"["
        self._spans = self._spans_of_list(first.start()) if self._is_list else self._spans_of_lines(first.start())
        if not self._spans:
            raise UserError(f"{path}: holds no rows")

    def __len__(self) -> int:
        return len(self._spans) // 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        begin, end = self._spans[2 * index], self._spans[2 * index + 1]
        row = self._parsed(begin, end)
        if not isinstance(row, dict):
            raise UserError(f"{self.place(index)}: a row is an object {{...}}, this one is a {type(row).__name__}")
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def place(self, index: int) -> str:
        """``file:line`` of a row."""
        return f"{self.path}:{self._line(self._spans[2 * index])}"

    def _line(self, offset: int) -> int:
        start, line = self._counted if self._counted[0] <= offset else (0, 1)
        line += sum(1 for _ in _NEWLINE.finditer(self._bytes, start, offset))
        self._counted = (offset, line)
        return line

    def _spans_of_lines(self, start: int) -> array[int]:
        spans, size = array("Q"), len(self._bytes)
        while start < size:
            end = self._bytes.find(b"\n", start)
            end = size if end < 0 else end
            if not self._bytes[start:end].isspace() and start < end:
                spans.extend((start, end))
            start = end + 1
        return spans

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
            return json.loads(self._bytes[begin:end].decode())
        except UnicodeDecodeError as error:
            offset = begin + error.start
            problem = f"byte {offset} of the file is not UTF-8; save the file as UTF-8"
            raise UserError(f"{self.path}:{self._line(offset)}: {problem}") from None
        except json.JSONDecodeError as error:
            column = error.colno
            if error.lineno == 1:
                column += begin - (self._bytes.rfind(b"\n", 0, begin) + 1)
            hint = "" if self._is_list else " (rows stand one object a line, or in a list [...])"
            place = f"{self.path}:{self._line(begin) + error.lineno - 1}:{column}"
            raise UserError(f"{place}: invalid JSON: {error.msg}{hint}") from None
        except RecursionError:
            raise UserError(f"{self.path}:{self._line(begin)}: JSON nested too deeply") from None


def _mapped(path: Path) -> mmap.mmap:
    """The file's bytes; a gzipped file is unpacked into an unnamed temporary one first."""
    try:
        with path.open("rb") as file:
            if file.read(2) != b"\x1f\x8b":
                return _map(file, path)
        with gzip.open(path) as packed, tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(packed, unpacked)
            unpacked.flush()
            return _map(unpacked, path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip file: {error}") from None
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror or error}") from None


def _map(file: Any, path: Path) -> mmap.mmap:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise UserError(f"{path}: is empty") from None
