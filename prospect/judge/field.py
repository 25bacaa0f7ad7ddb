"""What is to be ranked, from files: rows prompt by prompt, and runs by counts. What is given twice counts once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prospect.errors import UserError, nearest
from prospect.judge.judged import Judged
from prospect.judge.people import is_labelled_pair, load_labelled_pairs
from prospect.judge.readers import load_judgments
from prospect.judge.runs import Run, load_runs
from prospect.judge.tables import Row, is_result, load_rows


@dataclass(frozen=True, slots=True)
class Field:
    """All that is to be ranked, of the same judge with the same prompt once ``one_judge`` has seen to it."""

    rows: Sequence[Judged]
    runs: Sequence[Run]
    notes: Sequence[str] = ()


@dataclass(slots=True)
class _Reading:
    """What was read so far, and where each thing stood first, by its hash."""

    rows: list[Judged] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)

    def is_new(self, rows: Sequence[Row], place: str) -> bool:
        """Whether the same rows, in whatever order, were not read before; a note says where, if they were."""
        each = sorted(json.dumps(row, sort_keys=True) for row in rows)
        mark = hashlib.sha256("\n".join(each).encode()).hexdigest()
        if mark in self.places:
            self.notes.append(f"{place}: the same as {self.places[mark]}: counted once")
            return False
        self.places[mark] = place
        return True


def load_field(paths: Sequence[Path], label: str = "majority") -> Field:
    """Everything in the files. A result line whose judgments are at hand is read from these."""
    read = _Reading()
    for path in paths:
        rows = load_rows(path)
        if not read.is_new(rows, str(path)):
            continue
        if is_result(rows[0]):
            _add_runs(read, path, rows, paths)
        elif is_labelled_pair(rows[0]):
            read.rows += load_labelled_pairs(path, label)
        else:
            judgments = load_judgments(path)
            read.rows += judgments.rows
            read.notes += judgments.notes
    different = list(dict.fromkeys(read.rows))
    if len(different) < len(read.rows):
        read.notes.append(f"{len(read.rows) - len(different)} judgments stand there twice: counted once")
    return Field(different, read.runs, read.notes)


def _add_runs(read: _Reading, path: Path, rows: Sequence[Row], paths: Sequence[Path]) -> None:
    for number, (row, run) in enumerate(zip(rows, load_runs([path]), strict=True), 1):
        place, file = f"{path} line {number}", _judgments_of(run, path, paths)
        if not read.is_new([{"line": row}], place):
            continue
        if file is None:
            read.runs.append(run)
        elif read.is_new(load_rows(file), f"the judgments of {place}"):
            read.rows += load_judgments(file).rows


def _judgments_of(run: Run, path: Path, paths: Sequence[Path]) -> Path | None:
    """Where they should be, beside the results, or among the given files."""
    if run.judgments is None:
        return None
    given = (other for other in paths if other.name == run.judgments.name)
    places = (run.judgments, path.parent / "judgments" / run.judgments.name, *given)
    return next((file for file in places if file.is_file()), None)


def one_judge(field: Field, wanted: str | None) -> Field:
    """The part of one judge, with one prompt.

    Raises:
        UserError: there is none of that name, or several, or their baseline's answers differ.
    """
    judges = sorted({row.judge for row in field.rows} | {run.judge for run in field.runs})
    if wanted is not None and wanted not in judges:
        raise UserError(f"--judge {wanted}: no such judge{nearest(wanted, judges)}; there are {', '.join(judges)}")
    if wanted is None and len(judges) > 1:
        raise UserError(
            f"results of several judges ({', '.join(judges)}) share no table: choose one with --judge, "
            "or see how far they agree with `compare.py agree`"
        )
    rows = [row for row in field.rows if row.judge == (wanted or judges[0])]
    runs = [run for run in field.runs if run.judge == (wanted or judges[0])]
    settings = sorted({row.setting for row in rows} | {run.setting for run in runs})
    if len(settings) > 1:
        raise UserError(f"results of several judge's prompts or endpoints share no table: {', '.join(settings)}")
    _check_baselines(rows)
    return Field(rows, runs, field.notes)


def _check_baselines(rows: Sequence[Judged]) -> None:
    """Refuse a baseline whose answers to the same prompts are not the same for all.

    Raises:
        UserError: names it.
    """
    marks: dict[tuple[str, str, int], set[str]] = {}
    for row in rows:
        if row.baseline_mark:
            marks.setdefault((row.baseline, *row.key), set()).add(row.baseline_mark)
    differ = [key for key, found in marks.items() if len(found) > 1]
    if differ:
        raise UserError(
            f"`{differ[0][0]}` stands for different answers on {len(differ)} of {len(marks)} rows: runs that were "
            "compared with different baselines share no table"
        )
