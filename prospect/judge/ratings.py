"""MT-Bench's single-answer grades (``*_single.jsonl``): means by turn, and pairs made of two models' grades.

A grade of −1 is no verdict. Two grades that differ by at most 0.1 tie, as in MT-Bench's human agreement figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prospect.errors import UserError, nearest
from prospect.judge.commands import Answer
from prospect.judge.tables import Row
from prospect.stats.bootstrap import cluster_means, estimate

_TIE = 0.1


def is_rating(row: Row) -> bool:
    """Whether a row is a grade."""
    return {"model", "score", "turn", "question_id"} <= row.keys()


def aggregate(path: Path, rows: Sequence[Row], baseline: str | None, seed: int) -> Answer:
    """Means of every model, by turn and in all; with a baseline also the win rate of its grades.

    Raises:
        UserError: a row is no grade, or nobody is called like the baseline.
    """
    grades: dict[str, dict[tuple[str, int], float]] = {}
    for number, row in enumerate(rows, 1):
        if not is_rating(row) or not isinstance(row["score"], int | float):
            raise UserError(f"{path}: row {number}: not a grade like the first row")
        mine = grades.setdefault(str(row["model"]), {})
        if row["score"] != -1:
            mine[str(row["question_id"]), int(row["turn"])] = float(row["score"])
    if baseline is not None and baseline not in grades:
        raise UserError(f"{path}: --baseline {baseline}{nearest(baseline, grades)}; it has {', '.join(sorted(grades))}")
    models = [_model(name, mine, grades.get(baseline or ""), seed) for name, mine in grades.items()]
    text = "\n".join(
        f"{model['model']}: mean {_grade(model['average'])}, turn 1 {_grade(model['turn_1'])}, "
        f"turn 2 {_grade(model['turn_2'])}"
        for model in models
    )
    return Answer({"file": str(path), "kind": "mt_bench_single", "models": models}, text)


def _model(
    name: str, grades: dict[tuple[str, int], float], baseline: dict[tuple[str, int], float] | None, seed: int
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "model": name,
        "n": len(grades),
        "average": _mean(list(grades.values())),
        "turn_1": _mean([grade for (_, turn), grade in grades.items() if turn == 1]),
        "turn_2": _mean([grade for (_, turn), grade in grades.items() if turn == 2]),
    }
    if baseline is not None and baseline is not grades:
        shared = [(key, grades[key] - baseline[key]) for key in grades if key in baseline]
        scores = [(key[0], 0.5 if abs(gap) <= _TIE else float(gap > 0)) for key, gap in shared]
        rate = estimate(cluster_means(scores), seed)
        record["win_rate"] = None if rate is None else 100 * rate.mean
        record["ci95"] = None if rate is None else [100 * end for end in rate.ci95]
    return record


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _grade(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
