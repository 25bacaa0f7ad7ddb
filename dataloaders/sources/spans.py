"""A file's rows as offsets into its bytes: however long the file, only the offsets are held in memory."""

from __future__ import annotations

import gzip
import mmap
import re
import shutil
import tempfile
import zlib
from array import array
from pathlib import Path
from typing import Any

from prospect.errors import MachineError, UserError

_NEWLINE = re.compile(rb"\n")
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class Spans:
    """Rows by number. Whatever is wrong raises UserError with file and line."""

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
        self._first = first.start()  # where the content begins
        self._spans = array("Q")  # begin and end of each row

    def __len__(self) -> int:
        return len(self._spans) // 2

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

    def _decoded(self, begin: int, end: int) -> str:
        try:
            return self._bytes[begin:end].decode()
        except UnicodeDecodeError as error:
            offset = begin + error.start
            problem = f"byte {offset} of the file is not UTF-8; save the file as UTF-8"
            raise UserError(f"{self.path}:{self._line(offset)}: {problem}") from None


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
