"""Files where the name of a data set stands: ``datasets=[ultrabin,pairs.jsonl]``, as HALOs has it.

Such a file becomes a data set of its own, named after it, that the source ``files`` reads.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prospect.errors import UserError, nearest

SUFFIXES = (".json", ".jsonl", ".parquet", ".arrow", ".csv", ".tsv", ".gz", ".txt")


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file, or a pattern of several, as the data set ``datasets.<name>``."""

    name: str
    path: str

    @property
    def source_word(self) -> str:
        """What says how it is read."""
        return f"++datasets.{self.name}.source=files"

    @property
    def path_word(self) -> str:
        """What says where it lies."""
        quoted = self.path.replace("\\", "\\\\").replace("'", "\\'")
        return f"++datasets.{self.name}.path='{quoted}'"


def is_file_name(name: str, members: Collection[str]) -> bool:
    """Whether a member of ``datasets`` is a file rather than a data set of this name."""
    return name not in members and (name.endswith(SUFFIXES) or Path(name).expanduser().is_file())


def own_files(names: Sequence[str], members: Collection[str]) -> tuple[list[str], list[OwnFile]]:
    """(data sets, files) among the names that are chosen for ``datasets``.

    Raises:
        UserError: there is no such file.
    """
    sets = [name for name in names if not is_file_name(name, members)]
    found: list[OwnFile] = []
    for path in (name for name in names if name not in sets):
        _check(path)
        plain = os.path.normpath(path)
        found.append(OwnFile(_unused(name_of(plain), (*sets, *(own.name for own in found))), plain))
    return sets, found


def name_of(path: str) -> str:
    """The name of the data set that a file is: the file's, without its suffixes, as a key can be written."""
    stem = Path(path).name
    while stem.endswith(SUFFIXES):
        stem = stem.rpartition(".")[0]
    key = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_") or name_of(str(Path(path).absolute().parent))
    return key if not key[0].isdigit() else f"file_{key}"


def _unused(name: str, taken: Collection[str]) -> str:
    return next(own for own in _numbered(name) if own not in taken)


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def _check(path: str) -> None:
    where = Path(path).expanduser()
    if where.is_file() or (glob.has_magic(path) and glob.glob(str(where), recursive=True)):
        return
    siblings = [child.name for child in where.parent.iterdir()] if where.parent.is_dir() else []
    raise UserError(f"datasets: there is no file {path}{nearest(where.name, siblings)}")
