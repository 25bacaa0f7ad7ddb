"""Judgments that exist, from the files of five tools.

| kind | a row | what makes it known |
| --- | --- | --- |
| ``ours`` | a pair, with its games (``judgments.py``) | ``prompt_id, games`` |
| ``alpaca_eval`` | annotations: JSON list or JSONL, with texts or with lengths only | ``preference`` |
| ``mt_bench`` | a pair in both orders (``*_pair.jsonl``) | ``g1_winner, g2_winner`` |
| ``mt_bench_single`` | a grade of one answer (``*_single.jsonl``) | ``model, score, turn`` |
| ``arena_hard`` | two games against the baseline | ``games, model`` |

A run's result line (HALOs' and ours) holds no rows; ``runs.py`` reads it. Nothing is looked up by what a file says, and
a row that fits no kind is an error that names it.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prospect.errors import UserError
from prospect.judge.judged import Judged, Judgments, Shown, mean_score
from prospect.judge.tables import Row, load_rows, with_input


def load_judgments(path: Path, baseline: str | None = None) -> Judgments:
    """The judged pairs of a file; ``baseline`` says who that is where a file compares everybody with everybody.

    Raises:
        UserError: the file is of no known kind, or a row lacks what its kind needs.
    """
    rows = load_rows(path)
    for kind, (needs, read) in _KINDS.items():
        if needs <= rows[0].keys():
            try:
                found, notes = read(rows, path, baseline)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise UserError(f"{path}: a row does not look like the first one, of kind {kind}: {error!r}") from None
            return Judgments(path.stem, kind, found, notes)
    raise UserError(
        f"{path}: no judgments that are known here (a row has {', '.join(sorted(map(str, rows[0]))[:8])}); known are "
        f"{', '.join(_KINDS)}"
    )


def is_judgments(row: Row) -> bool:
    """Whether a file that begins with this row is one of judgments."""
    return any(needs <= row.keys() for needs, _ in _KINDS.values())


def instruction_id(text: str) -> str:
    """By which AlpacaEval's instructions are joined."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def asked_in(row: Row) -> str:
    """The same of a row's ``instruction``, with the input that belongs to it."""
    return instruction_id(with_input(row, "instruction", row["instruction"]))


def weighted_preference(first: float | None, second: float | None, switched: bool) -> float | None:
    """AlpacaEval's preference of the two first-token log-probabilities of ``m`` (shown first) and ``M``: 2 − P, where
    P = e^m / (e^m + e^M), and 3 minus that if the order was switched. A missing label has probability 0."""
    if first is None and second is None:
        return None
    missing = -math.inf
    gap = (missing if second is None else second) - (missing if first is None else first)
    share = 1 / (1 + math.exp(min(gap, 700.0)))
    return 1 + share if switched else 2 - share


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _ours(rows: Sequence[Row], path: Path, baseline: str | None) -> tuple[list[Judged], list[str]]:
    found = []
    for row in rows:
        games = tuple(Shown(bool(game["candidate_first"]), _score(game["score"])) for game in row["games"])
        found.append(
            Judged(
                prompt_id=row["prompt_id"],
                score=mean_score([game.score for game in games]) if games else _score(row["score"]),
                sample=int(row["sample"]),
                games=games,
                failed=row["status"] == "failed",
                candidate=row["generator_2"],
                baseline=row["generator_1"],
                judge=row["judge"],
                setting=setting_of(row["endpoint"], row["judge_prompt"], row),
                category=row.get("dataset") or "",
                instruction_id=instruction_id(row["instruction"]),
                lengths=(len(row["output_1"]), len(row["output_2"])),
                texts=(row["output_1"], row["output_2"]),
                baseline_mark=_mark(row["output_1"]),
            )
        )
    return found, []


def setting_of(endpoint: Any, prompt: Any, row: Row) -> str:
    """How a row's judge was asked: figures of two settings do not compare."""
    return " ".join(filter(None, (endpoint, prompt, row.get("request"))))


def _score(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"score {value!r} is not within 0 and 1")
    return float(value)


def _alpaca_eval(rows: Sequence[Row], path: Path, baseline: str | None) -> tuple[list[Judged], list[str]]:
    """Preference in [1, 2]; 0 and 1.5 are ties; null, NaN and anything else leave the denominator."""
    found, strange, seen = [], 0, Counter[tuple[str, str]]()
    for row in rows:
        score = _from_preference(row["preference"])
        strange += score is None and row["preference"] is not None
        mark = row["instruction_id"] if row.get("instruction") is None else asked_in(row)
        texts = (_text(row["output_1"]), _text(row["output_2"])) if "output_1" in row and "output_2" in row else None
        lengths = (len(texts[0]), len(texts[1])) if texts else _lengths(row)
        first = _shown_first(row, score)
        candidate = str(row.get("generator_2") or path.stem)
        found.append(
            Judged(
                prompt_id=mark,
                score=score,
                sample=seen[candidate, mark],
                games=() if first is None else (Shown(first, score),),
                failed=score is None,
                candidate=candidate,
                baseline=str(row.get("generator_1") or "baseline"),
                judge=str(row.get("annotator") or ""),
                category=str(row.get("dataset") or ""),
                instruction_id=mark,
                lengths=lengths,
                texts=texts,
                baseline_mark=_mark(texts[0]) if texts else str(row.get("len_output_1", "")),
            )
        )
        seen[candidate, mark] += 1
    return found, [f"{strange} preferences are neither within 1 and 2 nor 0: left out"] if strange else []


def _text(output: Any) -> str:
    """An answer that is null is an empty one."""
    return "" if output is None else str(output)


def _lengths(row: Row) -> tuple[int, int] | None:
    lengths = (row.get("len_output_1"), row.get("len_output_2"))
    return None if lengths[0] is None or lengths[1] is None else (int(lengths[0]), int(lengths[1]))


def _from_preference(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    if value == 0:
        return 0.5
    return float(value) - 1 if 1 <= value <= 2 else None


def _shown_first(row: Row, score: float | None) -> bool | None:
    """Whether the candidate was shown first: as the row says, or as its log-probabilities betray; None: unknown."""
    if isinstance(row.get("switched"), bool):
        return bool(row["switched"])
    completion = row.get("raw_completion")
    if score is None or score == 0.5 or not isinstance(completion, dict):
        return None
    try:
        top = completion["logprobs"]["content"][0]["top_logprobs"]
        seen = {entry["token"]: float(entry["logprob"]) for entry in top}
    except (KeyError, TypeError, IndexError, ValueError):
        return None
    for switched in (False, True):
        preference = weighted_preference(seen.get("m"), seen.get("M"), switched)
        if preference is not None and abs(preference - 1 - score) < 1e-6:
            return switched
    return None


_MT_SCORES = {"model_1": 1.0, "model_2": 0.0, "tie": 0.5}


def _mt_bench(rows: Sequence[Row], path: Path, baseline: str | None) -> tuple[list[Judged], list[str]]:
    """Model 1 is shown first in the first game."""
    names = {row["model_1"] for row in rows} | {row["model_2"] for row in rows}
    if baseline is not None and baseline not in names:
        raise UserError(f"{path}: --baseline {baseline} is not in it; it has {', '.join(sorted(names))}")
    against = baseline or _common_model(rows)
    found = []
    for row in rows:
        if baseline is not None and baseline not in (row["model_1"], row["model_2"]):
            continue
        turned = row["model_1"] == against
        scores = [_MT_SCORES.get(row[game]) for game in ("g1_winner", "g2_winner")]
        if turned:
            scores = [None if score is None else 1 - score for score in scores]
        sides = (row["model_1"], row["model_2"]) if turned else (row["model_2"], row["model_1"])
        found.append(
            Judged(
                prompt_id=str(row["question_id"]),
                score=mean_score(scores),
                sample=int(row.get("turn") or 1),
                games=(Shown(not turned, scores[0]), Shown(turned, scores[1])),
                candidate=sides[1],
                baseline=sides[0],
                judge=_judge_name(row.get("judge")),
                category=str(row.get("category") or ""),
            )
        )
    return found, []


def _common_model(rows: Sequence[Row]) -> str | None:
    """The one model that stands in every row; where that is true of two, the second one."""
    common = set.intersection(*({row["model_1"], row["model_2"]} for row in rows))
    if len(common) == 2:
        return str(rows[0]["model_2"])
    return str(common.pop()) if common else None


def _judge_name(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _arena_hard(rows: Sequence[Row], path: Path, baseline: str | None) -> tuple[list[Judged], list[str]]:
    """The baseline is answer A in the first game, the candidate in the second. A strong verdict has weight 3."""
    found = []
    for row in rows:
        games = []
        for number, game in enumerate([*row["games"], None, None][:2]):
            label = game.get("score") if game else None
            games.append(_arena_game(label, candidate_is_a=number == 1))
        found.append(
            Judged(
                prompt_id=str(row.get("uid") or row["question_id"]),
                score=mean_score([game.score for game in games]),
                games=tuple(games),
                candidate=str(row["model"]),
                baseline=str(row.get("baseline") or ""),
                judge=str(row.get("judge") or ""),
                category=str(row.get("category") or ""),
            )
        )
    return found, []


def _arena_game(label: Any, candidate_is_a: bool) -> Shown:
    if label is None:
        return Shown(candidate_is_a, None)
    word = str(label).strip().strip("[]").upper()
    sign = word.strip("AB")
    if word[:1] + word[-1:] not in ("AB", "BA") or sign not in (">", ">>", "<", "<<", "="):
        raise ValueError(f"verdict {label!r}")
    left = 0.5 if sign == "=" else float(sign[0] == ">")
    for_a = left if word[0] == "A" else 1 - left
    return Shown(candidate_is_a, for_a if candidate_is_a else 1 - for_a, weight=3 if len(sign) == 2 else 1)


Reader = Callable[[Sequence[Row], Path, str | None], tuple[list[Judged], list[str]]]
_KINDS: Mapping[str, tuple[frozenset[str], Reader]] = {
    "ours": (frozenset({"prompt_id", "games", "score", "status"}), _ours),
    "alpaca_eval": (frozenset({"preference"}), _alpaca_eval),
    "mt_bench": (frozenset({"g1_winner", "g2_winner"}), _mt_bench),
    "arena_hard": (frozenset({"games", "model"}), _arena_hard),
}
