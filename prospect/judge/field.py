"""All that is to be ranked, from files of every kind. What stands in several files counts once: a copy of a comparison
is no second one, and would make everything look surer than it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prospect.judge.judged import Judged
from prospect.judge.people import is_labelled_pair, load_labelled_pairs
from prospect.judge.readers import load_judgments
from prospect.judge.runs import Run, load_runs
from prospect.judge.tables import is_result, load_rows


@dataclass(frozen=True, slots=True)
class Field:
    """Rows prompt by prompt, and runs that are known by their counts."""

    rows: Sequence[Judged]
    runs: Sequence[Run]
    notes: Sequence[str] = ()

    def run_names(self) -> tuple[list[str], list[str]]:
        """What the runs and their baselines are called. A run that was compared twice is told apart by its date, and a
        name that stands for several baselines by their hashes."""
        often = [run.name for run in self.runs]
        marks: dict[str, set[str]] = {}
        for run in self.runs:
            marks.setdefault(run.baseline_name, set()).add(run.baseline)
        candidates = [
            run.name if often.count(run.name) == 1 else f"{run.name} ({run.line.get('date')})" for run in self.runs
        ]
        baselines = [
            run.baseline_name if len(marks[run.baseline_name]) == 1 else f"{run.baseline_name} ({run.baseline[:8]})"
            for run in self.runs
        ]
        return candidates, baselines


def load_field(paths: Sequence[Path], label: str = "majority") -> Field:
    """Everything in the files. A result line whose judgments are at hand is read from these."""
    rows: dict[Judged, None] = {}
    runs: dict[str, Run] = {}
    notes: list[str] = []

    def add(path: Path, found: Iterable[Judged]) -> None:
        new = list(found)
        again = sum(row in rows for row in new)
        if again:
            notes.append(f"{path}: {again} of {len(new)} rows stand in other files, too: counted once")
        rows.update(dict.fromkeys(new))

    for path in paths:
        first = load_rows(path)[0]
        if is_labelled_pair(first):
            add(path, load_labelled_pairs(path, label))
        elif is_result(first):
            read: set[Path] = set()
            for one in load_runs([path]):
                file = _judgments_of(one, path)
                mark = json.dumps(one.line, sort_keys=True)
                if file is not None:
                    if file.resolve() not in read:  # the same comparison again
                        read.add(file.resolve())
                        add(file, load_judgments(file).rows)
                elif mark in runs:
                    notes.append(f"{path}: the line of {one.name} stands in other files, too: counted once")
                else:
                    runs[mark] = one
        else:
            judgments = load_judgments(path)
            add(path, judgments.rows)
            notes += judgments.notes
    return Field([*rows], [*runs.values()], notes)


def _judgments_of(run: Run, path: Path) -> Path | None:
    if run.judgments is None:
        return None
    for file in (run.judgments, path.parent / "judgments" / run.judgments.name):
        if file.is_file():
            return file
    return None
