"""The rows of one data set part, by number: a local file (JSON, Parquet, CSV, Arrow, text) or a part of a hub set."""

from __future__ import annotations

import bisect
import csv
import glob
import gzip
import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from dataloaders.sources.json_table import JsonTable
from dataloaders.sources.spans import Spans
from dataloaders.sources.text_table import TextTable
from prospect.errors import MachineError, UserError, nearest

Row = Mapping[str, Any]


class Table(Protocol):
    """What rows are read from: a list, a JsonTable, a TextTable, a memory-mapped datasets.Dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Row: ...

    def __iter__(self) -> Iterator[Row]: ...


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows under the names that a source knows: ``columns`` maps its names to those of the table."""

    table: Table
    origin: str  # the file or hub part, for people
    key: str  # changes with the content
    columns: Mapping[str, str | None] = field(default_factory=dict)  # None: no column of the table, whatever its name
    is_text: bool = False  # every cell is text, as in CSV
    has_all_keys: bool = False  # Arrow's structs have all keys that any row has, null where a row has not
    prefix: str = "datasets.<name>"  # of the data set's keys in the configuration, for advice

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Row:
        return self._renamed(self.table[index])

    def __iter__(self) -> Iterator[Row]:
        return map(self._renamed, self.table)

    @property
    def found(self) -> list[str]:
        """Names of the columns, judged by the first hundred rows: a JSON row may leave some out."""
        return list(dict.fromkeys(name for row in itertools.islice(self, 100) for name in row))

    def place(self, index: int) -> str:
        """Where a row stands, for people: ``file:line`` where there are lines."""
        if isinstance(self.table, Spans | _Joined):
            return self.table.place(index)
        return f"{self.origin} row {index + 1}"

    @property
    def shadowed(self) -> tuple[str, ...]:
        """Columns of the table whose names are given to others."""
        named = {ours for ours, theirs in self.columns.items() if theirs not in (None, ours)}
        there = dict.fromkeys(name for row in itertools.islice(self.table, 100) for name in row if name in named)
        return tuple(name for name in there if name not in self.columns.values())

    def renamed(self, columns: Mapping[str, str | None]) -> Rows:
        """The same rows with further columns under other names."""
        return replace(self, columns={**self.columns, **columns})

    def _renamed(self, row: Row) -> Row:
        if not self.columns:
            return row
        mapped = {ours: row.get(theirs) for ours, theirs in self.columns.items() if theirs is not None}
        return {**{name: value for name, value in row.items() if name not in self.columns.values()}, **mapped}


class _Joined:
    """Rows of several files as one table."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts, self.starts = parts, [0, *itertools.accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> Row:
        part = bisect.bisect_right(self.starts, index) - 1
        return self.parts[part][index - self.starts[part]]

    def __iter__(self) -> Iterator[Row]:
        return itertools.chain.from_iterable(self.parts)

    def place(self, index: int) -> str:
        part = bisect.bisect_right(self.starts, index) - 1
        return self.parts[part].place(index - self.starts[part])


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of several files, one after the other."""
    key = hashlib.sha256(" ".join(part.key for part in parts).encode()).hexdigest()
    text, keys = any(part.is_text for part in parts), any(part.has_all_keys for part in parts)
    return Rows(_Joined(parts), ", ".join(part.origin for part in parts), key, is_text=text, has_all_keys=keys)


def local_files(path: str | list[str], key: str) -> list[Path]:
    """The files that the configuration's ``key`` names, in its order; those that fit one pattern by name.

    Raises:
        UserError: one of them cannot be read, or is named twice, or a pattern fits none.
    """
    files = [file for one in ([path] if isinstance(path, str) else path) for file in _fitting(one, key)]
    if not files:
        raise UserError(f"{key}: the list names no file")
    known: set[Path] = set()
    for file in files:
        if file.resolve() in known:
            raise UserError(f"{key}: names {file} twice; to see its rows more often: {key.rpartition('.')[0]}.weight")
        known.add(file.resolve())
    return files


def _fitting(path: str, key: str) -> list[Path]:
    where = Path(path).expanduser()
    if not glob.has_magic(path) or where.exists():
        return [local_file(path, key)]
    found = [name for name in sorted(glob.glob(str(where), recursive=True)) if Path(name).is_file()]
    if not found:
        raise UserError(f"{key}: no file fits {path}")
    return [local_file(name, key) for name in found]


def local_file(path: str, key: str) -> Path:
    """The file that the configuration's ``key`` names, if it can be read."""
    file = Path(path).expanduser()
    if file.is_dir():
        inside = ", ".join(sorted(child.name for child in file.iterdir())[:4])
        raise UserError(f"{key}: {path} is a directory; name one file in it ({inside or 'it is empty'})")
    if not file.exists():
        siblings = [child.name for child in file.parent.iterdir()] if file.parent.is_dir() else []
        raise UserError(f"{key}: there is no file {path}{nearest(file.name, siblings)}")
    if not os.access(file, os.R_OK):
        raise MachineError(f"{key}: {path} is not readable by this user")
    if file.stat().st_size == 0:
        raise UserError(f"{key}: {path} is empty")
    return file


def content_key(file: Path) -> str:
    """SHA-256 of the file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_local(file: Path) -> Rows:
    """Rows of a local file; JSON of either form is told by its content, tables and text by their suffix."""
    suffix = "".join(file.suffixes[-2:]) if file.suffix == ".gz" else file.suffix
    table: Table
    if suffix in (".txt", ".txt.gz"):
        table = TextTable(file)
    else:
        table = _columnar(file, suffix) if suffix in _COLUMNAR else JsonTable(file)
    if not len(table):
        raise UserError(f"{file}: holds no rows")
    is_text = "sv" in suffix
    return Rows(table, str(file), content_key(file), is_text=is_text, has_all_keys=suffix in _COLUMNAR and not is_text)


_COLUMNAR = {".parquet": "parquet", ".arrow": "arrow", **dict.fromkeys((".csv", ".csv.gz", ".tsv", ".tsv.gz"), "csv")}


def _columnar(file: Path, suffix: str) -> Table:
    import datasets

    builder = _COLUMNAR[suffix]
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        options = _csv_options(file, suffix) if builder == "csv" else {}
        table: Table = datasets.load_dataset(builder, data_files=str(file), split="train", **options)
        return table
    except (datasets.exceptions.DatasetGenerationError, UnicodeDecodeError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno:
            raise MachineError(f"{file}: {cause.strerror}") from None
        raise UserError(f"{file}: cannot be read as {builder}: {_one_line(cause)}") from None
    finally:
        if bars:
            datasets.enable_progress_bars()


def _csv_options(file: Path, suffix: str) -> dict[str, Any]:
    """Every cell is read as the text it is: an answer may well be "None", "NA" or "007"."""
    import datasets

    encoding, separator = "utf-8-sig", "\t" if ".tsv" in suffix else ","
    opened = gzip.open if suffix.endswith(".gz") else open
    with opened(file, "rt", encoding=encoding, newline="") as lines:
        header = next(csv.reader(lines, delimiter=separator), [])
    features = datasets.Features({name: datasets.Value("string") for name in header})
    return {"sep": separator, "encoding": encoding, "features": features, "keep_default_na": False}


@dataclass(frozen=True, slots=True)
class Hub:
    """Where a data set lives on the Hugging Face hub."""

    repo: str
    subset: str | None = None
    data_dir: str | None = None
    data_file: str | None = None  # one JSON file, for repositories that `datasets` cannot load as a whole


def read_hub(hub: Hub, part: str, revision: str | None, key: str) -> Rows:
    """Rows of one part of a hub data set, from its cache where there is one."""
    import datasets

    where: dict[str, Any] = {"path": hub.repo, "name": hub.subset, "data_dir": hub.data_dir, "revision": revision}
    if hub.data_file:
        at = f"@{revision}" if revision else ""
        where = {"path": "json", "data_files": {part: f"hf://datasets/{hub.repo}{at}/{hub.data_file}"}}
    with _hub_errors(hub.repo, key):
        table = datasets.load_dataset(**where, split=part)
    # The fingerprint of a freshly loaded set follows from repository, configuration, commit and part.
    return Rows(table, f"{hub.repo} ({part})", table._fingerprint, has_all_keys=True)


def hub_parts(hub: Hub, revision: str | None, key: str) -> Sequence[str]:
    """Names of the parts that a hub data set has."""
    import datasets

    with _hub_errors(hub.repo, key):
        parts: list[str] = datasets.get_dataset_split_names(hub.repo, hub.subset, revision=revision)
    return parts


@contextmanager
def _hub_errors(repo: str, key: str) -> Iterator[None]:
    """Whatever stops a download becomes one line: its kinds are many (HTTP, name lookup, gated, offline mode)."""
    try:
        yield
    except Exception as error:
        problem = f"{type(error).__name__}: {_one_line(error)}"
        raise MachineError(
            f"{repo}: not to be had from the hub ({problem}); {key}=<file> reads a local copy"
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
