"""``compare.py rank RESULTS…``: many runs in one table, by Bradley–Terry, from result lines (HALOs' too), judgments, or
pairs that people have judged.

Only what one judge with one prompt has judged shares a table. Everybody must be connected to everybody by games; where
all were judged against one baseline, a strength is the logit of a win rate and nothing else.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prospect.errors import UserError, nearest
from prospect.judge.commands import Answer
from prospect.judge.judged import Judged
from prospect.judge.people import is_labelled_pair, load_labelled_pairs
from prospect.judge.readers import load_judgments
from prospect.judge.runs import Run, load_runs
from prospect.judge.sweep import SweepControl, control_sweep
from prospect.judge.tables import is_result, load_rows
from prospect.stats.bradley_terry import Met, Standing, parts, standings


@dataclass(frozen=True, slots=True)
class Field:
    """All that is to be ranked: rows prompt by prompt, and runs by their counts."""

    rows: Sequence[Judged]
    runs: Sequence[Run]
    notes: Sequence[str] = ()


def declare(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    add = parser.add_argument
    add(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="results of compare.py (ours or HALOs'), judgments, or labelled pairs",
    )
    add("--judge", help="only what this judge has judged, where the files have several")
    add("--anchor", metavar="NAME", help="who stands at Elo 1000 (the common baseline, else the mean)")
    add("--label", metavar="COLUMN", default="majority", help="of labelled pairs: whose verdicts (majority)")
    add(
        "--lc",
        choices=[str(c) for c in SweepControl],
        default="auto",
        help="length control: each run alone, or the sweep's",
    )
    add("-s", "--seed", type=int, default=0, help="of the bootstrap (0)")


def run(given: argparse.Namespace) -> Answer:
    """Read and rank.

    Raises:
        UserError: several judges are mixed, or some never met the others.
    """
    field = one_judge(load_field([Path(name) for name in given.results], given.label), given.judge)
    record = rank(field, given.anchor, given.seed)
    record["length_control"] = control_sweep(field.rows, SweepControl(given.lc), given.seed)
    return Answer(record, _words(record), [*field.notes, *record["warnings"]])


def load_field(paths: Sequence[Path], label: str = "majority") -> Field:
    """Everything in the files. A result line whose judgments are at hand is read from these."""
    rows: list[Judged] = []
    runs: list[Run] = []
    notes: list[str] = []
    seen: set[Path] = set()
    for path in paths:
        first = load_rows(path)[0]
        if is_labelled_pair(first):
            rows += load_labelled_pairs(path, label)
        elif is_result(first):
            for one in load_runs([path]):
                file = _judgments_of(one, path)
                if file is None:
                    runs.append(one)
                elif file.resolve() not in seen:  # the same comparison again
                    seen.add(file.resolve())
                    rows += load_judgments(file).rows
        else:
            judgments = load_judgments(path)
            rows += judgments.rows
            notes += judgments.notes
    return Field(rows, runs, notes)


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


def rank(field: Field, anchor: str | None, seed: int) -> dict[str, Any]:
    """The table.

    Raises:
        UserError: nobody is called like the anchor, or some never met the others.
    """
    names, met = _met(field)
    groups = parts(met.wins)
    if len(groups) > 1:
        shown = "; ".join(", ".join(names[i] for i in group[:4]) for group in groups[:4])
        raise UserError(f"these never met, not even by way of others, so nothing ranks them: {shown}")
    if anchor is not None and anchor not in names:
        raise UserError(f"--anchor {anchor}: nobody of that name{nearest(anchor, names)}; there are {', '.join(names)}")
    shared = _shared_baseline(field, names)
    fixed = anchor or shared
    at = None if fixed is None else names.index(fixed)
    table = standings(met, at, seed)
    return {
        "judge": field.rows[0].judge if field.rows else field.runs[0].judge,
        "models": names,
        "wins_matrix": met.wins.tolist(),
        "shared_baseline": shared,
        "anchor": fixed,
        "table": [_line(names[place.index], place, met.wins) for place in table],
        "warnings": _warnings(names, met.wins),
    }


def _judgments_of(run: Run, path: Path) -> Path | None:
    if run.judgments is None:
        return None
    for file in (run.judgments, path.parent / "judgments" / run.judgments.name):
        if file.is_file():
            return file
    return None


def _met(field: Field) -> tuple[list[str], Met]:
    """Names, and who met whom. Where one name stands for several baselines, each has its own place."""
    marks: dict[str, set[str]] = {}
    for run in field.runs:
        marks.setdefault(run.baseline_name, set()).add(run.baseline)
    baselines = {
        (run.baseline_name, run.baseline): run.baseline_name
        if len(marks[run.baseline_name]) == 1
        else f"{run.baseline_name} ({run.baseline[:8]})"
        for run in field.runs
    }
    candidates = _run_names(field.runs)
    names = sorted(
        {name for row in field.rows for name in (row.candidate, row.baseline)}
        | set(candidates)
        | set(baselines.values())
    )
    place = {name: i for i, name in enumerate(names)}
    prompts = {prompt: i for i, prompt in enumerate(sorted({row.prompt_id for row in field.rows}))}
    clusters = np.zeros((len(prompts), len(names), len(names)))
    for row in field.rows:
        if row.score is not None:
            i, j = place[row.candidate], place[row.baseline]
            clusters[prompts[row.prompt_id], i, j] += row.score
            clusters[prompts[row.prompt_id], j, i] += 1 - row.score
    counts = [
        (place[name], place[baselines[run.baseline_name, run.baseline]], run.wins, run.ties, run.losses)
        for name, run in zip(candidates, field.runs, strict=True)
    ]
    return names, Met(clusters, counts)


def _run_names(runs: Sequence[Run]) -> list[str]:
    """A run that stands in the files twice is told apart by its date."""
    often = {run.name: sum(other.name == run.name for other in runs) for run in runs}
    return [run.name if often[run.name] == 1 else f"{run.name} ({run.line.get('date')})" for run in runs]


def _shared_baseline(field: Field, names: Sequence[str]) -> str | None:
    found = {row.baseline for row in field.rows} | {run.baseline_name for run in field.runs}
    return next(iter(found)) if len(found) == 1 and found <= set(names) else None


def _line(name: str, place: Standing, wins: Any) -> dict[str, Any]:
    won, lost = float(wins[place.index].sum()), float(wins[:, place.index].sum())
    return {
        "name": name,
        "rank": place.rank,
        "rank95": list(place.rank95),
        "elo": place.elo,
        "elo_ci95": list(place.elo_ci95),
        "strength": place.strength,
        "se": place.se,
        "games": won + lost,
        "win_rate": 100 * won / (won + lost),
        "p_gap_to_first_holm": place.p_best,
    }


def _warnings(names: Sequence[str], wins: Any) -> list[str]:
    extreme = [name for i, name in enumerate(names) if not wins[i].sum() or not wins[:, i].sum()]
    return [f"{name} has won or lost everything: its Elo is only a bound" for name in extreme]


def _words(record: Mapping[str, Any]) -> str:
    width = max(len(line["name"]) for line in record["table"])
    lines = [
        f"{'rank':>4}  {'95%':>7}  {'':<{width}}  {'Elo':>5}  {'95% interval':>14}  win rate  p of gap to first (Holm)"
    ]
    for line in record["table"]:
        low, high = line["elo_ci95"]
        ranks = "–".join(map(str, line["rank95"]))
        lines.append(
            f"{line['rank']:>4}  {ranks:>7}  {line['name']:<{width}}  {line['elo']:>5.0f}  {low:>6.0f} – {high:<5.0f}  "
            f"{line['win_rate']:>7.1f}%  {line['p_gap_to_first_holm']:.3g}"
        )
    if record["shared_baseline"]:
        lines.append(f"all met {record['shared_baseline']} only: Elo is the logit of the win rate on another scale")
    control = record.get("length_control")
    for name, found in (control or {"runs": {}})["runs"].items():
        low, high = found["ci95"]
        lines.append(f"length-controlled, {name}: {found['rate']:.2f}% ({low:.2f} to {high:.2f})")
    return "\n".join(lines)
