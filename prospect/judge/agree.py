"""``compare.py agree JUDGMENTS [HUMAN]``: how far a judge agrees with people, and how far people with each other.

``--jury`` adds further judges of the same pairs: their mean, how far they agree, and the pairs that they dispute.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from prospect.judge.commands import Answer
from prospect.judge.jury import jury
from prospect.judge.people import Item, Label, items_of, load_items
from prospect.judge.readers import is_judgments, load_judgments
from prospect.judge.tables import load_rows
from prospect.stats.agreement import Agreement, agree
from prospect.stats.intervals import wilson

_NAMES = {0: "tie", 1: "baseline", 2: "candidate"}


def declare(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    add = parser.add_argument
    add("judgments", metavar="JUDGMENTS", help="judgments, or a file with verdicts and labels (LLMBar's, PandaLM's)")
    add("human", nargs="?", metavar="HUMAN", help="labels of people: JSONL with a key and a label a row")
    add("--jury", nargs="+", default=[], metavar="FILE", help="judgments of the same pairs by other judges")
    add("-s", "--seed", type=int, default=0, help="of the bootstrap (0)")


def run(given: argparse.Namespace) -> Answer:
    """Read and compare.

    Raises:
        UserError: there are no labels, or they belong to other pairs.
    """
    path, warnings = Path(given.judgments), []
    record: dict[str, Any] = {"file": str(path)}
    if given.human is not None:
        judgments = load_judgments(path)
        items, lost = items_of(judgments.rows, Path(given.human))
        record["reports"] = {judgments.rows[0].judge or judgments.name: report(items, given.seed)}
        warnings = [f"{given.human}: {lost} labels belong to no judged pair"] if lost else []
    elif not (given.jury and is_judgments(load_rows(path)[0])):
        record["reports"] = {name: report(items, given.seed) for name, items in load_items(path).items()}
    if given.jury:
        record["jury"] = jury([load_judgments(Path(name)) for name in (path, *given.jury)], given.seed)
    return Answer(record, _words(record), warnings)


def report(items: Sequence[Item], seed: int) -> dict[str, Any]:
    """All figures of one judge. Shares and kappas, not percent; ``ci95`` by resampling prompts."""
    judged = [item for item in items if item.human is not None]
    parsed = [item for item in judged if item.verdict is not None]
    firm = [item for item in parsed if item.human and item.verdict]
    with_ties, without = (_agreement(some, seed, labels) for some, labels in ((parsed, (0, 1, 2)), (firm, (1, 2))))
    correct = sum(item.verdict == item.human for item in parsed)
    return {
        "n": len(judged),
        "n_parsed": len(parsed),
        "acc_all_unparsed_wrong": correct / len(judged) if judged else None,
        "acc_parsed": with_ties.accuracy,
        "acc_parsed_ci95": with_ties.accuracy_ci95,
        "kappa_parsed": with_ties.kappa,
        "kappa_parsed_ci95": with_ties.kappa_ci95,
        "ac1_parsed": with_ties.ac1,
        "n_no_ties": without.n,
        "acc_no_ties": without.accuracy,
        "kappa_no_ties": without.kappa,
        "kappa_no_ties_ci95": without.kappa_ci95,
        "ac1_no_ties": without.ac1,
        "confusion": {
            "rows": "judge",
            "columns": "people",
            "labels": list(_NAMES.values()),
            "counts": with_ties.confusion,
        },
        **_orders(judged, seed),
        "longer": _longer(parsed),
        **_people(items, seed),
    }


def _agreement(items: Sequence[Item], seed: int, labels: Sequence[int]) -> Agreement:
    return agree(
        [item.verdict for item in items],
        [item.human for item in items],
        labels,
        [item.cluster for item in items],
        seed,
    )


def _orders(items: Sequence[Item], seed: int) -> dict[str, Any]:
    """What both orders say apart and together; nothing where not both are known. Accuracies count unparsed as wrong."""
    if not items or not all(item.both_orders for item in items):
        return {}
    n = len(items)
    same = [item for item in items if item.order_12 is not None and item.order_12 == item.order_21]
    right_12, right_21 = (sum(label == item.human for item, label in pairs) for pairs in (
        [(item, item.order_12) for item in items], [(item, item.order_21) for item in items]))  # fmt: skip
    first_12, first_21 = sum(item.order_12 == 1 for item in items), sum(item.order_21 == 2 for item in items)
    unparsed = [sum(item.order_12 is None for item in items), sum(item.order_21 is None for item in items)]
    games = 2 * n - sum(unparsed)
    return {
        "n_unparsed_12": unparsed[0],
        "n_unparsed_21": unparsed[1],
        "acc_12": right_12 / n,
        "acc_21": right_21 / n,
        "agree_orders_strings": sum(item.order_12 == item.order_21 for item in items) / n,
        "n_consistent": len(same),
        "acc_on_consistent": sum(item.order_12 == item.human for item in same) / len(same) if same else None,
        "acc_ties_half": (right_12 + right_21) / (2 * n),
        "kappa_gold_12": _kappa([(item.order_12, item.human) for item in items], seed),
        "kappa_gold_21": _kappa([(item.order_21, item.human) for item in items], seed),
        "kappa_gold_consistent": _kappa([(item.order_12, item.human) for item in same], seed),
        "kappa_between_orders_parsed": _kappa([(item.order_12, item.order_21) for item in items], seed),
        "first_shown_wins_12": first_12,
        "first_shown_wins_21": first_21,
        "n_parsed_games": games,
        "first_position_rate": (first_12 + first_21) / games if games else None,
        "first_position_ci95": wilson(first_12 + first_21, games),
        "longer_wins": sum(_is_longer(item, item.order_12) for item in items),
    }


def _kappa(pairs: Sequence[tuple[Label, Label]], seed: int) -> float | None:
    known = [pair for pair in pairs if None not in pair]
    return agree([a for a, _ in known], [b for _, b in known], (0, 1, 2), range(len(known)), seed).kappa


def _is_longer(item: Item, label: Label) -> bool:
    if item.lengths is None or not label:
        return False
    return item.lengths[label - 1] > item.lengths[2 - label]


def _longer(items: Sequence[Item]) -> dict[str, Any] | None:
    """How often the longer text is preferred, by the judge and by people, where one is longer and one is preferred."""
    unequal = [item for item in items if item.lengths and item.lengths[0] != item.lengths[1]]
    if not unequal:
        return None
    found: dict[str, Any] = {}
    for who, labels in (
        ("judge", [(item, item.verdict) for item in unequal]),
        ("people", [(item, item.human) for item in unequal]),
    ):
        firm = [(item, label) for item, label in labels if label]
        won = sum(_is_longer(item, label) for item, label in firm)
        found[who] = {"n": len(firm), "share": won / len(firm) if firm else None, "ci95": wilson(won, len(firm))}
    return found


def _people(items: Sequence[Item], seed: int) -> dict[str, Any]:
    """How far people agree with each other: what no judge can be expected to beat by much."""
    names = sorted({name for item in items for name in item.raters})
    found: dict[str, Any] = {}
    kappas, shares = [], []
    for a, b in combinations(names, 2):
        both = [
            (item.raters[a], item.raters[b], item.cluster)
            for item in items
            if item.raters.get(a) is not None and item.raters.get(b) is not None
        ]
        pair = agree([x for x, _, _ in both], [y for _, y, _ in both], (0, 1, 2), [c for _, _, c in both], seed)
        if pair.kappa is not None and pair.accuracy is not None:
            found |= {f"kappa_{a}_{b}": pair.kappa, f"agree_{a}_{b}": pair.accuracy}
            kappas.append(pair.kappa)
            shares.append(pair.accuracy)
    if not kappas:
        return {"people": None}
    ceiling = {"mean_kappa": sum(kappas) / len(kappas), "mean_agreement": sum(shares) / len(shares)}
    return found | {"people": {"pairs_of_people": len(kappas), **ceiling}}


def _words(record: Mapping[str, Any]) -> str:
    lines = []
    for name, found in record.get("reports", {}).items():
        if found["acc_parsed"] is None:
            lines.append(f"{name}: no verdict on a labelled pair")
            continue
        interval = found["kappa_parsed_ci95"]
        lines.append(
            f"{name}: agrees with people on {found['acc_parsed']:.1%} of {found['n_parsed']} pairs, kappa "
            f"{_number(found['kappa_parsed'])}"
            + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else "")
            + f"; without ties {_number(found['acc_no_ties'])}, kappa {_number(found['kappa_no_ties'])}"
        )
        if "acc_12" in found:
            lines.append(
                f"  by order {found['acc_12']:.1%} and {found['acc_21']:.1%}; the same in both orders on "
                f"{found['n_consistent']} of {found['n']}, then right on {_number(found['acc_on_consistent'])}"
            )
        if found["people"]:
            people = found["people"]
            lines.append(f"  people among themselves: {people['mean_agreement']:.1%}, kappa {people['mean_kappa']:.2f}")
    if "jury" in record:
        found = record["jury"]
        low, high = found["ci95"]
        lines.append(
            f"jury of {', '.join(found['judges'])}: win rate {found['win_rate']:.2f}% ({low:.2f} to {high:.2f}) on "
            f"{found['prompts']} prompts; {len(found['disputed'])} pairs disputed"
        )
        lines += [
            f"  {pair['judges'][0]} and {pair['judges'][1]}: kappa {_number(pair['kappa'])}" for pair in found["pairs"]
        ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
