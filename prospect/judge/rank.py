"""``compare.py rank RESULTS…``: many runs in one table, by Bradley–Terry, from result lines (HALOs' too), judgments, or
pairs that people have judged.

Only what one judge with one prompt has judged shares a table. Everybody must be connected to everybody by games; where
all were judged against one baseline, a strength is the logit of a win rate and nothing else.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prospect.errors import UserError, nearest
from prospect.judge.commands import Answer
from prospect.judge.field import Field, load_field
from prospect.judge.gaps import evidence
from prospect.judge.judged import Judged
from prospect.judge.sweep import SweepControl, control_sweep
from prospect.stats.bradley_terry import Met, Standing, parts, standings
from prospect.stats.ranks import Place, places


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
    found = places([line.index for line in table], evidence(field, names), seed)
    return {
        "judge": field.rows[0].judge if field.rows else field.runs[0].judge,
        "models": names,
        "wins_matrix": met.wins.tolist(),
        "shared_baseline": shared,
        "anchor": fixed,
        "table": [_line(names[line.index], line, place, met.wins) for line, place in zip(table, found, strict=True)],
        "warnings": [*_warnings(names, met.wins), *_contradicted([names[line.index] for line in table], found)],
    }


def _met(field: Field) -> tuple[list[str], Met]:
    """Names, and who met whom."""
    candidates, baselines = field.run_names()
    names = sorted({name for row in field.rows for name in (row.candidate, row.baseline)} | {*candidates, *baselines})
    place = {name: i for i, name in enumerate(names)}
    prompts = {prompt: i for i, prompt in enumerate(sorted({row.prompt_id for row in field.rows}))}
    clusters = np.zeros((len(prompts), len(names), len(names)))
    for row in field.rows:
        if row.score is not None:
            i, j = place[row.candidate], place[row.baseline]
            clusters[prompts[row.prompt_id], i, j] += row.score
            clusters[prompts[row.prompt_id], j, i] += 1 - row.score
    counts = [
        (place[name], place[baseline], run.wins, run.ties, run.losses)
        for name, baseline, run in zip(candidates, baselines, field.runs, strict=True)
    ]
    return names, Met(clusters, counts)


def _shared_baseline(field: Field, names: Sequence[str]) -> str | None:
    found = {row.baseline for row in field.rows} | {run.baseline_name for run in field.runs}
    return next(iter(found)) if len(found) == 1 and found <= set(names) else None


def _line(name: str, line: Standing, place: Place, wins: Any) -> dict[str, Any]:
    won, lost = float(wins[line.index].sum()), float(wins[:, line.index].sum())
    return {
        "name": name,
        "rank": place.rank,
        "rank95": list(place.rank95),
        "elo": line.elo,
        "elo_ci95": list(line.elo_ci95),
        "strength": line.strength,
        "se": line.se,
        "games": won + lost,
        "win_rate": 100 * won / (won + lost),
        "p_gap_to_first_holm": place.p,
        "p_test": place.test,
        "p_exact": place.exact,
    }


def _contradicted(names: Sequence[str], found: Sequence[Place]) -> list[str]:
    return [
        f"{name} is behind {names[0]} by all its prompts, but ahead on those that both have: nothing tells them apart"
        for name, place in zip(names, found, strict=True)
        if place.contradicted
    ]


def _warnings(names: Sequence[str], wins: Any) -> list[str]:
    extreme = [name for i, name in enumerate(names) if not wins[i].sum() or not wins[:, i].sum()]
    return [f"{name} has won or lost everything: its Elo is only a bound" for name in extreme]


def _words(record: Mapping[str, Any]) -> str:
    width = max(len(line["name"]) for line in record["table"])
    lines = [
        f"{'rank':>4}  {'95%':>7}  {'':<{width}}  {'Elo':>5}  {'95% interval':>14}  win rate  p of gap to first (Holm)"
    ]
    for line in record["table"]:
        low, high = ("–" if end is None else f"{end:.0f}" for end in line["elo_ci95"])
        ranks = "–".join(map(str, line["rank95"]))
        p = "–" if line["p_gap_to_first_holm"] is None else f"{line['p_gap_to_first_holm']:.3g}"
        lines.append(
            f"{line['rank']:>4}  {ranks:>7}  {line['name']:<{width}}  {line['elo']:>5.0f}  {low:>6} to {high:<5} "
            f"{line['win_rate']:>7.1f}%  {p}"
        )
    if record["shared_baseline"]:
        lines.append(f"all met {record['shared_baseline']} only: Elo is the logit of the win rate on another scale")
    control = record.get("length_control")
    for name, found in (control or {"runs": {}})["runs"].items():
        low, high = found["ci95"]
        lines.append(f"length-controlled, {name}: {found['rate']:.2f}% ({low:.2f} to {high:.2f})")
    return "\n".join(lines)
