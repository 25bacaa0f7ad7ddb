"""What people preferred: labels of pairs, in the forms that they come in.

A label is 1 (baseline, or first text), 2 (candidate, or second text), 0 (tie) or None. Files with the judge's verdicts
beside the labels: LLMBar's (``gold, winner_12, winner_21``: both orders, mapped back) and PandaLM's (``h1…, majority``
and a column for each judge, ``pair`` the two models). Files of labels alone have a key (``prompt_id``,
``instruction_id``, ``question_id`` or ``instruction``; ``sample`` or ``turn``) and a label (``label``, ``preference``,
``winner`` or ``majority``), one row a person (``annotator`` or ``judge``); MT-Bench's name the models, too.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prospect.errors import UserError, nearest
from prospect.judge.judged import Judged
from prospect.judge.readers import asked_in
from prospect.judge.tables import Row, load_rows

Label = int | None
_KEYS = ("prompt_id", "instruction_id", "question_id")
_LABELS = ("label", "winner", "preference", "majority")
_SAMPLES = ("sample", "turn")
_WORDS: Mapping[Any, int] = {
    **dict.fromkeys(("0", "1.5", "tie", "tie (inconsistent)", "draw", "same", "c", "both"), 0),
    **dict.fromkeys(("1", "baseline", "output_1", "model_1", "model_a", "a"), 1),
    **dict.fromkeys(("2", "candidate", "output_2", "model_2", "model_b", "b"), 2),
}
_OTHER_WAY = {0: 0, 1: 2, 2: 1}


@dataclass(frozen=True, slots=True)
class Item:
    """A pair that people and a judge have seen. ``human`` is the majority's label, ``raters`` all of them by name.
    ``verdict`` is the judge's; ``order_12`` and ``order_21`` its verdicts with the first or second text shown first,
    where both are known."""

    group: str
    cluster: str
    human: Label
    raters: Mapping[str, Label]
    verdict: Label
    order_12: Label = None
    order_21: Label = None
    both_orders: bool = False
    lengths: tuple[int, int] | None = None
    sample: int = 0


def majority(labels: Sequence[Label]) -> Label:
    """The most frequent label; a tie where there is none; None without labels."""
    counts = Counter(label for label in labels if label is not None).most_common(2)
    if not counts:
        return None
    return 0 if len(counts) > 1 and counts[0][1] == counts[1][1] else counts[0][0]


def is_both_orders(row: Row) -> bool:
    """LLMBar's form."""
    return {"gold", "winner_12", "winner_21"} <= row.keys()


def is_labelled_pair(row: Row) -> bool:
    """PandaLM's form."""
    return {"pair", "majority", "h1"} <= row.keys()


def load_items(path: Path) -> dict[str, list[Item]]:
    """Items by judge (or by set), of a file with labels and verdicts.

    Raises:
        UserError: the file has no labels.
    """
    rows = load_rows(path)
    try:
        if is_both_orders(rows[0]):
            return _both_orders(rows)
        if is_labelled_pair(rows[0]):
            known = {"idx", "pair", "majority", "len_1", "len_2"}
            judges = [name for name in rows[0] if name not in known and not re.fullmatch(r"h\d+", name)]
            return {judge: [_pandalm(row, judge) for row in rows] for judge in judges}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: a row does not look like the first one: {error!r}") from None
    raise UserError(f"{path}: no labels of people in it; name a file of them: compare.py agree {path} LABELS")


def load_labelled_pairs(path: Path, column: str) -> list[Judged]:
    """PandaLM's form as games between models: model 1 as baseline, scored by a column of labels."""
    rows = load_rows(path)
    if column not in rows[0]:
        raise UserError(f"{path}: --label {column}: no such column{nearest(column, map(str, rows[0]))}")
    found = []
    for number, row in enumerate(rows, 1):
        first, _, second = str(row.get("pair")).partition("_")
        if not second:
            raise UserError(f"{path}: row {number}: `pair` is {row.get('pair')!r}, not two models joined by _")
        label = read_label(row.get(column))
        score = None if label is None else (0.5, 0.0, 1.0)[label]
        lengths = (int(row["len_1"]), int(row["len_2"])) if {"len_1", "len_2"} <= row.keys() else None
        found.append(
            Judged(str(row.get("idx", number)), score, candidate=second, baseline=first, judge=column, lengths=lengths)
        )
    return found


def items_of(judged: Sequence[Judged], labels: Path) -> tuple[list[Item], int]:
    """Judged rows with the labels of a file; and how many labelled pairs found no row.

    Raises:
        UserError: the file has no labels, or none of them belongs to a row.
    """
    by_key: dict[str, list[Judged]] = {}
    for item in judged:
        for key in {item.prompt_id, item.instruction_id} - {""}:
            by_key.setdefault(key, []).append(item)
    raters: dict[int, dict[str, Label]] = {}
    place = {id(item): i for i, item in enumerate(judged)}
    lost = 0
    for number, row in enumerate(load_rows(labels), 1):
        key, rater, label, sides = _label_row(row, labels, number)
        found = [item for item in by_key.get(key, ()) if _is_of(item, row, sides)]
        lost += not found
        for item in found:
            turned = sides is not None and sides[0] == item.candidate
            mine = raters.setdefault(place[id(item)], {})
            mine[rater if rater not in mine else f"{rater} {len(mine)}"] = (
                label if label is None or not turned else _OTHER_WAY[label]
            )
    if not raters:
        raise UserError(f"{labels}: none of its labels belongs to a judged pair (joined by {', '.join(_KEYS)})")
    return [_item(judged[i], raters[i]) for i in sorted(raters)], lost


def read_label(value: Any) -> Label:
    """A label as 0, 1, 2 or None. A number between 1 and 2 is for the nearer one.

    Raises:
        ValueError: it is no label.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and 1 <= value <= 2:
        return 0 if value == 1.5 else round(value)
    word = str(int(value) if isinstance(value, float) and value == int(value) else value).strip().lower()
    if word not in _WORDS:
        raise ValueError(f"label {value!r}")
    return _WORDS[word]


def _label_row(row: Row, path: Path, number: int) -> tuple[str, str, Label, tuple[str, str] | None]:
    key = next((str(row[name]) for name in _KEYS if row.get(name) is not None), None)
    if key is None and isinstance(row.get("instruction"), str):
        key = asked_in(row)
    column = next((name for name in _LABELS if name in row), None)
    if key is None or column is None:
        raise UserError(f"{path}: row {number}: needs one of {', '.join(_KEYS)} and one of {', '.join(_LABELS)}")
    rater = row.get("annotator", row.get("judge", "human"))
    rater = " ".join(map(str, rater)) if isinstance(rater, list) else str(rater)
    sides = (str(row["model_a"]), str(row["model_b"])) if {"model_a", "model_b"} <= row.keys() else None
    try:
        return key, rater, read_label(row[column]), sides
    except ValueError as error:
        raise UserError(f"{path}: row {number}: {error}; known are {', '.join(map(str, _WORDS))}") from None


def _is_of(item: Judged, row: Row, sides: tuple[str, str] | None) -> bool:
    sample = next((row[name] for name in _SAMPLES if isinstance(row.get(name), int)), None)
    return (sample is None or sample == item.sample) and (
        sides is None or set(sides) == {item.candidate, item.baseline}
    )


def _item(row: Judged, raters: Mapping[str, Label]) -> Item:
    return Item(
        group=row.category,
        cluster=row.prompt_id,
        human=majority(list(raters.values())),
        raters=raters,
        verdict=_verdict(row.score),
        order_12=_verdict(row.mean(candidate_first=False)),
        order_21=_verdict(row.mean(candidate_first=True)),
        both_orders=len({game.candidate_first for game in row.games}) == 2,
        lengths=row.lengths,
        sample=row.sample,
    )


def _verdict(score: float | None) -> Label:
    return None if score is None else 0 if score == 0.5 else 2 if score > 0.5 else 1


def _both_orders(rows: Sequence[Row]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for i, row in enumerate(rows):
        gold, first, second = (read_label(row[name]) for name in ("gold", "winner_12", "winner_21"))
        both = None not in (first, second)
        verdict = (first if first == second else 0) if both else None  # one order alone says what the place does, too
        item = Item(
            group=str(row.get("set") or ""),
            cluster=str(row.get("id", i)),
            human=gold,
            raters={"gold": gold},
            verdict=verdict,
            order_12=first,
            order_21=second,
            both_orders=True,
            lengths=(int(row["len_1"]), int(row["len_2"])) if "len_1" in row else None,
        )
        found.setdefault(item.group, []).append(item)
    return found


def _pandalm(row: Row, judge: str) -> Item:
    raters = {name: read_label(row[name]) for name in row if re.fullmatch(r"h\d+", name)}
    lengths = (int(row["len_1"]), int(row["len_2"])) if "len_1" in row else None
    return Item("", str(row.get("idx")), read_label(row["majority"]), raters, read_label(row[judge]), lengths=lengths)
