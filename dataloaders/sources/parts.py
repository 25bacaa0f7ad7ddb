"""Which rows a split of a data set is: a part on the hub, a local file, a share of either, or generated rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from dataloaders.example import Example
from dataloaders.sources.rows import Hub, Row, Rows, hub_parts, joined, local_files, read_hub, read_local
from dataloaders.sources.source import Source
from prospect.config.own_files import SUFFIXES
from prospect.config.schema import DatasetConfig, Split
from prospect.errors import UserError, nearest

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Part:
    """Rows read under the rules of ``split``; of a file that serves both, only the share that ``share`` names."""

    rows: Rows
    split: Split
    share: Split | None = None
    test_fraction: float = 0.0

    def has(self, example: Example) -> bool:
        """Whether the example belongs to this part."""
        if self.share is None:
            return True
        return (_position(example) < self.test_fraction) == (self.share is Split.test)


def _position(example: Example) -> float:
    """Where in [0, 1) a text or a conversation's opening falls: continuations fall on the same side of the split."""
    turns = example.prompt[: 1 + next((i for i, turn in enumerate(example.prompt) if turn.role == "user"), 0)]
    opening = "\0".join(f"{turn.role}\0{turn.content}" for turn in turns)
    opening = opening if example.text is None else example.text
    return int.from_bytes(hashlib.blake2b(opening.encode(), digest_size=6).digest()) / 2**48


def open_parts(name: str, source: Source, config: DatasetConfig, split: Split, seed: int) -> list[Part]:
    """The parts that make up ``split``. UserError where the data set has no such part, or its rows lack a column."""
    if not 0 <= config.test_fraction < 1:
        raise UserError(f"datasets.{name}.test_fraction: {config.test_fraction} is not in [0, 1)")
    available = _available(f"datasets.{name}", source, config, seed)
    if split is not Split.all and split not in available:
        raise UserError(f"datasets.{name}: there is no {split} part; it has {', '.join(available)}")
    train = available.get(Split.train)
    if split is Split.all and train and train.is_share:
        parts = [Part(rows, Split.all) for rows in train.open()]  # the same rows serve both: read them once, whole
    else:
        chosen = list(available) if split is Split.all else [split]
        parts = [
            Part(rows, part, part if available[part].is_share else None, config.test_fraction)
            for part in chosen
            for rows in available[part].open()
        ]
    _check_columns(f"datasets.{name}", source, config, [part.rows for part in parts])
    return [replace(part, rows=_with_columns(f"datasets.{name}", source, config, part.rows)) for part in parts]


@dataclass(frozen=True, slots=True)
class _Supply:
    """Where a part's rows come from, not opened yet."""

    open: Callable[[], Sequence[Rows]]
    is_share: bool = False  # of rows that serve training and test both


def _available(key: str, source: Source, config: DatasetConfig, seed: int) -> dict[Split, _Supply]:
    if source.generate:
        if config.path or config.test_path:
            raise UserError(f"{key}.path: the rows of {config.source} are generated; a file is read by source=files")
        return {split: _Supply(partial(_generated, source, split, seed)) for split in Split if split is not Split.all}
    repository = config.path if isinstance(config.path, str) and is_repository(config.path) else None
    if config.path and (source.hub or not repository):
        available = _from_files(key, source, config, config.path)
    elif source.hub:
        available = {
            split: _Supply(partial(_from_hub, source.hub, part, config.revision, f"{key}.path"))
            for split, part in source.splits.items()
        }
    elif repository:
        available = _from_repository(key, Hub(repository, config.subset), config)
    else:
        raise UserError(f"{key}.path: names no file to read")
    if config.test_path:
        available[Split.test] = _Supply(partial(_local, config.test_path, f"{key}.test_path", bool(source.required)))
    return available


def _from_files(key: str, source: Source, config: DatasetConfig, path: str | list[str]) -> dict[Split, _Supply]:
    whole = partial(_local, path, f"{key}.path", bool(source.required))
    if source.splits and Split.train not in source.splits:
        return {Split.test: _Supply(whole)}
    return {Split.train: _Supply(whole)} if config.test_path else _shared(whole)


def _from_repository(key: str, hub: Hub, config: DatasetConfig) -> dict[Split, _Supply]:
    parts = hub_parts(hub, config.revision, f"{key}.path")
    opened = {part: partial(_from_hub, hub, part, config.revision, f"{key}.path") for part in parts}
    if set(parts) == {"train"} and not config.test_path:
        return _shared(opened["train"])
    available = {split: _Supply(opened[split]) for split in Split if split in opened}
    if not available:
        raise UserError(f"{key}.path: {hub.repo} has no part named train, validation or test ({', '.join(parts)})")
    return available


def _shared(whole: Callable[[], Sequence[Rows]]) -> dict[Split, _Supply]:
    return {split: _Supply(whole, is_share=True) for split in (Split.train, Split.test)}


def _from_hub(hub: Hub, part: str, revision: str | None, key: str) -> list[Rows]:
    return [read_hub(hub, part, revision, key)]


def _local(path: str | list[str], key: str, as_one: bool) -> list[Rows]:
    """Rows of each file; ``as_one``: they are of one form, and a row may refer to another file's."""
    found = [read_local(file) for file in local_files(path, key)]
    return [joined(found)] if as_one and len(found) > 1 else found


class _Generated:
    """Rows from code, made when the first one is asked for: seed and code are enough to tell them from others."""

    def __init__(self, generate: Callable[[Split, int], Iterator[Row]], split: Split, seed: int) -> None:
        self.generate, self.split, self.seed = generate, split, seed

    @cached_property
    def rows(self) -> list[Row]:
        return list(self.generate(self.split, self.seed))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)


def _generated(source: Source, split: Split, seed: int) -> list[Rows]:
    assert source.generate
    table = _Generated(source.generate, split, seed)
    return [Rows(table, f"generated {split} part", f"{split} {seed}")]


def is_repository(path: str) -> bool:
    """Whether a path that is no file here reads as ``owner/name`` on the hub."""
    here = Path(path).expanduser()
    return (
        bool(_REPOSITORY.fullmatch(path))
        and not here.exists()
        and not here.parent.exists()
        and here.suffix not in SUFFIXES
    )


def _check_columns(key: str, source: Source, config: DatasetConfig, several: Sequence[Rows]) -> None:
    """UserError where a mapping is wrong: for a column that is not read, or from one that none of the files has."""
    known = (*source.required, *source.optional)
    for ours, theirs in config.columns.items():
        if ours not in known:
            raise UserError(f"{key}.columns.{ours}: {config.source} reads no such column{nearest(ours, known)}")
        if theirs is not None and not any(theirs in rows.found for rows in several):
            has = f"it has {_list(several[0].found)}" if len(several) == 1 else "nor has another file"
            raise UserError(f"{key}.columns.{ours}: {several[0].origin} has no column {theirs}; {has}")


def _with_columns(key: str, source: Source, config: DatasetConfig, rows: Rows) -> Rows:
    """The rows under the source's names. UserError where a required column is absent."""
    found = set(rows.found) if config.columns else ()
    there = {ours: theirs for ours, theirs in config.columns.items() if theirs is None or theirs in found}
    rows = replace(rows.renamed(there), prefix=key)
    absent = [column for column in source.required if column not in rows.found]
    if absent:
        raise UserError(
            f"{rows.origin}: no column {_list(absent)} (it has {_list(rows.found)}); {config.source} reads "
            f"{_list(source.required)}: map yours with ++{key}.columns.{absent[0]}=<name>, or use source=files"
        )
    return rows


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
