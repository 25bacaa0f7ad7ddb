"""The files that a comparison will write, checked before anything is paid for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from prospect.errors import UserError
from prospect.judge.options import Options


def check(options: Options) -> None:
    """Refuse files that could not be written, or that would take the place of what is read or of each other.

    Raises:
        UserError: names the flag.
    """
    given = {"-r": options.results, "-csv": options.csv, "--report": options.report}
    taken = {file.resolve(): flag for flag, file in (("-f", options.file), ("-f2", options.other)) if file}
    for flag, file in given.items():
        if file is None:
            continue
        other = taken.setdefault(file.resolve(), flag)
        if other != flag:
            raise UserError(f"{flag} {file}: the same file as {other}")
        check_writable(file, flag)
    _check_folder(options.results.parent / "judgments", "-r")


def check_writable(file: Path, flag: str) -> None:
    """Refuse a file that could not be written; leaves nothing behind.

    Raises:
        UserError: its folder cannot be made, or it is none that may be written.
    """
    if not file.exists():
        return _check_folder(file.parent, flag, file)
    try:
        with file.open("ab"):
            pass
    except OSError as error:
        raise UserError(f"{flag} {file}: {error.strerror}") from None


def _check_folder(folder: Path, flag: str, file: Path | None = None) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise UserError(f"{flag} {file or folder}: {error.strerror}") from None
