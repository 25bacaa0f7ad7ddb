"""``compare.py rank RESULTS…``: many runs in one table, by Bradley–Terry, from result lines (HALOs' too), judgments, or
pairs that people have judged.

Only what one judge with one prompt has judged shares a table. Everybody must be connected to everybody by games; where
all were judged against one baseline, a strength is the logit of a win rate and nothing else.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prospect.errors import UserError, nearest
from prospect.judge.commands import Answer
from prospect.judge.field import Field, load_field, one_judge
from prospect.judge.judged import Judged
from prospect.judge.runs import Run
from prospect.judge.sweep import SweepControl, control_sweep
from prospect.stats.bradley_terry import Standing, parts, standings
from prospect.stats.met import Met


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
    record["warnings"] = [*field.notes, *record["warnings"]]
    return Answer(record, _words(record), record["warnings"])


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
        "warnings": [*_bounds(names, met.wins, fixed), *_other_way(names, table)],
    }


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
    for (prompt, candidate, baseline), scores in _cells(field.rows).items():
        i, j, score = place[candidate], place[baseline], math.fsum(scores) / len(scores)
        clusters[prompts[prompt], i, j] = score
        clusters[prompts[prompt], j, i] = 1 - score
    counts = [
        (place[name], place[baselines[run.baseline_name, run.baseline]], run.wins, run.ties, run.losses)
        for name, run in zip(candidates, field.runs, strict=True)
    ]
    return names, Met(clusters, counts)


def _cells(rows: Sequence[Judged]) -> dict[tuple[str, str, str], list[float]]:
    """(prompt, candidate, baseline): the candidate's scores. The prompt is the unit, however often two met on it.

    Raises:
        UserError: somebody meets himself.
    """
    cells: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if row.candidate == row.baseline:
            raise UserError(f"`{row.candidate}` is the name of both sides: nobody can be ranked against himself")
        turned = (row.prompt_id, row.baseline, row.candidate)
        if row.score is not None and turned in cells:
            cells[turned].append(1 - row.score)
        elif row.score is not None:
            cells.setdefault((row.prompt_id, row.candidate, row.baseline), []).append(row.score)
    return cells


def _run_names(runs: Sequence[Run]) -> list[str]:
    """Runs of one name are told apart by their dates, and those of one date by their numbers."""
    often = Counter(run.name for run in runs)
    dated = [run.name if often[run.name] == 1 else f"{run.name} ({run.line.get('date')})" for run in runs]
    return [
        name if dated.count(name) == 1 else f"{name} #{dated[:at].count(name) + 1}" for at, name in enumerate(dated)
    ]


def _shared_baseline(field: Field, names: Sequence[str]) -> str | None:
    found = {row.baseline for row in field.rows} | {run.baseline_name for run in field.runs}
    return next(iter(found)) if len(found) == 1 and found <= set(names) else None


def _line(name: str, place: Standing, wins: Any) -> dict[str, Any]:
    won, lost = float(wins[place.index].sum()), float(wins[:, place.index].sum())
    gap = place.gap if place.p_best is not None else None
    return {
        "name": name,
        "rank": place.rank,
        "rank95": list(place.rank95),
        "elo": place.elo,
        "elo_ci95": [end if math.isfinite(end) else None for end in place.elo_ci95],
        "strength": place.strength,
        "se": place.se,
        "games": won + lost,
        "win_rate": 100 * won / (won + lost),
        "p_gap_to_first": gap and gap.p,
        "p_gap_to_first_holm": place.p_best,
        "p_test": gap and str(gap.test),
        "p_method": gap and gap.method,
    }


def _bounds(names: Sequence[str], wins: Any, anchor: str | None) -> list[str]:
    extreme = [name for i, name in enumerate(names) if not wins[i].sum() or not wins[:, i].sum()]
    found = [f"{name} has won or lost everything: its Elo is only a bound" for name in extreme]
    if extreme and len(names) > 2 and (anchor is None or anchor in extreme):
        found.append(f"so is everybody's, measured from {anchor or 'the mean'}: choose another --anchor")
    return found


def _other_way(names: Sequence[str], table: Sequence[Standing]) -> list[str]:
    return [
        f"{names[place.index]}: on what it shares with {names[table[0].index]} it is the better one by "
        f"{-100 * place.gap.difference:.2f} points, on all prompts of each it is not: no p"
        for place in table
        if place.gap is not None and place.p_best is None
    ]


def _words(record: Mapping[str, Any]) -> str:
    width = max(len(line["name"]) for line in record["table"])
    heads = f"{'95%':>7}  {'':<{width}}  {'Elo':>5}  {'95% interval':>14}  win rate  p of gap to first  by Holm"
    lines = [f"rank  {heads}"]
    for line in record["table"]:
        low, high = ("∞" if end is None else f"{end:.0f}" for end in line["elo_ci95"])
        ranks, p, holm = "–".join(map(str, line["rank95"])), line["p_gap_to_first"], line["p_gap_to_first_holm"]
        lines.append(
            f"{line['rank']:>4}  {ranks:>7}  {line['name']:<{width}}  {line['elo']:>5.0f}  "
            f"{'−' * (low == '∞') + low:>6} – {high:<5}  {line['win_rate']:>7.1f}%  {_p(p):>17}  {_p(holm)}"
        )
    if record["shared_baseline"]:
        lines.append(f"all met {record['shared_baseline']} only: Elo is the logit of the win rate on another scale")
    control = record.get("length_control")
    for name, found in (control or {"runs": {}})["runs"].items():
        low, high = found["ci95"]
        lines.append(f"length-controlled, {name}: {found['rate']:.2f}% ({low:.2f} to {high:.2f})")
    return "\n".join(lines)


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
