"""A comparison as it lies on the disk: the line of results, its judgments, and what other lines say of the same pairs.

``report`` takes a file of results (its last comparison, unless told which) or a file of judgments; either leads to the
other. Results of HALOs' own compare.py have no judgments: they give the headline and the table of runs alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prospect.errors import UserError
from prospect.judge.games import Outcome
from prospect.judge.judgments import of_line
from prospect.judge.people import Item, items_of
from prospect.judge.readers import load_judgments
from prospect.judge.samples import Pair
from prospect.judge.tables import load_rows

Line = Mapping[str, Any]
Key = tuple[str, int, str, str]  # a pair's prompt id, sample, candidate and baseline
Opinions = Mapping[Key, Mapping[str, float]]  # scores by judge


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a page is about. ``record`` is its line of results, ``others`` are further lines by the same judge with the
    same prompt against the same answers; ``opinions`` are what other judges said of its pairs, ``people`` what people
    said, ``judgments`` the file where they stand."""

    candidate: str
    baseline: str
    judge: str
    outcomes: tuple[Outcome, ...]
    record: Line
    others: tuple[Line, ...]
    opinions: Opinions
    judgments: Path | None = None
    people: tuple[Item, ...] = ()


def with_people(comparison: Comparison, labels: Path) -> Comparison:
    """The same with the labels of people, who may have seen some of its pairs.

    Raises:
        UserError: there are no judgments, or no label belongs to one.
    """
    if comparison.judgments is None:
        raise UserError(f"--human {labels}: these results have no judgments that people could have an opinion on")
    items, _ = items_of(load_judgments(comparison.judgments).rows, labels)
    return replace(comparison, people=tuple(items))


def load(file: Path, only: str | None = None, results: Path | None = None) -> Comparison:
    """The comparison of a file of results or of judgments; ``only``: the last one whose candidate or run is so named.
    ``results`` says where the line of judgments stands; else it is looked for beside their folder.

    Raises:
        UserError: the file cannot be read or is neither, or nothing in it has that name.
    """
    lines = load_rows(file)
    if all("games" in line for line in lines):
        near = [results] if results else sorted(file.resolve().parent.parent.glob("*.jsonl"))
        results = next((place for place in near if _line_of(place, file)), None)
        record = (_line_of(results, file) if results else None) or {}
        return _comparison(record, file, lines, load_rows(results) if results else [])
    records = [line for line in lines if "candidate" in line and "baseline" in line]
    if not records:
        raise UserError(f"{file}: neither results nor judgments of compare.py")
    record = _chosen(file, records, only)
    judgments = _judgments_of(file, record)
    own = load_rows(judgments) if judgments else []
    return _comparison(record, judgments, own, records)


def key_of(pair: Pair) -> Key:
    """What makes two judged pairs the same."""
    return pair.prompt_id, pair.sample, pair.candidate, pair.baseline


def name_of(record: Line) -> str:
    """The candidate of a line of results: its run where two columns of one file compete."""
    same_file = record["candidate"].get("file") == record["baseline"].get("file")
    return str(record.get("exp_name") if same_file and record.get("exp_name") else record["candidate"].get("name"))


def _comparison(record: Line, file: Path | None, own: Sequence[Line], records: Sequence[Line]) -> Comparison:
    if own:
        candidate, baseline, judge = (str(own[0].get(key) or "") for key in ("generator_2", "generator_1", "annotator"))
    else:
        candidate, baseline, judge = name_of(record), str(record["baseline"].get("name")), str(record.get("judge"))
    others = tuple(line for line in records if line is not record and record and _ground(line) == _ground(record))
    opinions = _beside(file, own) if file else {}
    return Comparison(candidate, baseline, judge, tuple(map(_outcome, own)), record, _newest(others), opinions, file)


def _ground(line: Line) -> tuple[Any, ...]:
    """What two lines must share for their win rates to stand in one table: judge, prompt and baseline."""
    prompt = line.get("prompt") or {}
    baseline = line["baseline"]
    asked = (line.get("judge"), prompt.get("sha256"), line.get("endpoint"), line.get("request"))
    return *asked, baseline.get("name"), baseline.get("column")


def _newest(lines: Sequence[Line]) -> tuple[Line, ...]:
    """One line a candidate: the last."""
    return tuple({name_of(line): line for line in lines}.values())


def _chosen(file: Path, records: Sequence[Line], only: str | None) -> Line:
    if only is None:
        return records[-1]
    names = [{name_of(record), str(record.get("exp_name")), str(record["candidate"].get("name"))} for record in records]
    found = [record for record, known in zip(records, names, strict=True) if only in known]
    if not found:
        raise UserError(f"{file}: no comparison of `{only}`; there are {', '.join(sorted(set.union(*names)))}")
    return found[-1]


def _judgments_of(results: Path, record: Line) -> Path | None:
    """Where a line's judgments are: as it says, or, where the folder has moved, beside the results."""
    if not record.get("judgments"):
        return None
    said = Path(record["judgments"])
    moved = results.parent / said.parent.name / said.name
    return next((file for file in (moved, said) if file.is_file()), None)


def _line_of(results: Path, judgments: Path) -> Line | None:
    """The last line of results that these judgments belong to."""
    try:
        lines = load_rows(results)
    except UserError:
        return None
    own = [line for line in lines if "candidate" in line and Path(str(line.get("judgments"))).name == judgments.name]
    return own[-1] if own else None


def _beside(file: Path, own: Sequence[Line]) -> Opinions:
    """What other judges, or the same one asked otherwise, said of these pairs, in other files of the same folder."""
    wanted = {_key(row) for row in own}
    found: dict[Key, dict[str, float]] = {}
    for other in sorted(set(file.parent.glob("*.jsonl")) - {file}):
        name = _other_judge(other, own[0])
        for row in load_rows(other) if name else ():
            if _key(row) in wanted and (score := _outcome(row).score) is not None:
                found.setdefault(_key(row), {})[name] = score
    return found


def _other_judge(file: Path, own: Line) -> str:
    """The judge of a file that speaks of the same two sides, told by its first line; nothing where it does not."""
    try:
        with file.open(encoding="utf-8") as lines:
            first = json.loads(lines.readline())
        if any(first[side] != own[side] for side in ("generator_1", "generator_2")):
            return ""
        if first["annotator"] != own["annotator"]:
            return str(first["annotator"])
        same = first["judge_prompt"] == own["judge_prompt"]
        return "" if same else f"{first['annotator']} ({first['judge_prompt_name']})"
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _key(row: Line) -> Key:
    return row["prompt_id"], row["sample"], row["output_2"], row["output_1"]


def _outcome(row: Line) -> Outcome:
    try:
        return of_line(row)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"not a line of judgments as compare.py writes it: {error!r}") from None
