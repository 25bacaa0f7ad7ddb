"""Folders that are either complete and verified, or not there.

A folder is written beside its place, every file hashed into MANIFEST.json and flushed to disk, and then renamed: a kill
at any moment leaves the old state or the new one. Reading checks sizes and hashes, because neither safetensors nor
torch notices a flipped bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prospect.errors import MachineError

MANIFEST = "MANIFEST.json"


@contextmanager
def committed(folder: Path) -> Iterator[Path]:
    """A temporary folder to write into; it takes ``folder``'s place once the block ends without an error.

    Raises:
        MachineError: the disk is full or refuses; what was there before is untouched.
    """
    building = folder.parent / f".tmp-{folder.name}-{uuid.uuid4().hex[:8]}"
    try:
        building.mkdir(parents=True)
        yield building
        _write_manifest(building)
        replace(building, folder)
    except OSError as error:
        free = shutil.disk_usage(folder.parent).free if folder.parent.is_dir() else 0
        raise MachineError(
            f"{folder}: could not be written ({error.strerror or error}; {free:,} bytes free)"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def replace(new: Path, folder: Path) -> None:
    """Rename ``new`` to ``folder``; a folder that stands there is moved aside first, then deleted."""
    aside = folder.parent / f".old-{folder.name}"
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    new.rename(folder)
    _flush(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def recover(parent: Path) -> None:
    """Clear up after a kill: drop what is half-built, put back what was moved aside for a folder that never came."""
    for leftover in parent.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for aside in parent.glob(".old-*"):
        folder = parent / aside.name.removeprefix(".old-")
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(folder)


def fault(folder: Path) -> str | None:
    """What is wrong with a committed folder, in words; None if every file is as it was written."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError):
        return f"no readable {MANIFEST}"
    for name, entry in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != entry["bytes"]:
            return f"{name} has {file.stat().st_size} bytes, not {entry['bytes']}"
    for name, entry in files.items():
        if file_hash(folder / name) != entry["sha256"]:
            return f"{name} differs from what was written"
    return None


def file_hash(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_text(file: Path, text: str) -> None:
    """Replace a small file in one step."""
    part = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with part.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(file)


def link_tree(source: Path, target: Path) -> None:
    """A copy of a folder that shares its files' bytes where the file system can."""

    def link(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError:
            shutil.copy2(a, b)

    shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True)


def _write_manifest(folder: Path) -> None:
    files = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        files[str(file.relative_to(folder))] = {"bytes": file.stat().st_size, "sha256": file_hash(file)}
        _flush(file)
    (folder / MANIFEST).write_text(json.dumps({"schema": 1, "files": files}, indent=1))
    _flush(folder / MANIFEST)
    _flush(folder)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
