"""Length- and style-controlled win rates of judged rows, and AlpacaEval's instruments for them.

``--lc alpaca`` needs a folder with ``lc_instruction_difficulty.json`` (γ of each instruction) and
``lc_gamed_prior.json`` (the two gamed baselines). They are joined by the instruction's hash, never by row number:
AlpacaEval joins by row, so that its figure changes when rows are shuffled or missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prospect.errors import NotConvergedError, UserError
from prospect.judge.games import Outcome
from prospect.judge.judged import Judged
from prospect.judge.options import Control
from prospect.judge.readers import instruction_id
from prospect.stats import length
from prospect.stats.logistic import Pull

_DIFFICULTY, _PRIOR = "lc_instruction_difficulty.json", "lc_gamed_prior.json"
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_MARKS = (
    re.compile(r"^#{1,6}\s", re.MULTILINE),
    re.compile(r"^\s*(?:[-*+]|\d+[.)])\s", re.MULTILINE),
    re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
)


@dataclass(frozen=True, slots=True)
class Instruments:
    """Difficulty by instruction, and the pull of the gamed baselines."""

    difficulty: Mapping[str, float]
    pull: Pull


def instruments_for(control: Control, folder: Path | None) -> Instruments | None:
    """What a control needs; None where it does without.

    Raises:
        UserError: ``alpaca`` without a folder, or a folder that lacks a file.
    """
    if control is Control.alpaca and folder is None:
        raise UserError(
            f"--lc alpaca needs --lc-data DIR, a folder with {_DIFFICULTY} and {_PRIOR}; --lc auto does without"
        )
    return load_instruments(folder) if folder and control is not Control.off else None


def load_instruments(folder: Path) -> Instruments:
    """Read the two files.

    Raises:
        UserError: one is absent, or does not hold what it should.
    """
    try:
        difficulty = json.loads((folder / _DIFFICULTY).read_text())
        prior = json.loads((folder / _PRIOR).read_text())
        values = np.array(difficulty["instruction_difficulty"], dtype=np.float64)
        known = dict(zip(difficulty["order"], map(float, values), strict=True))
        x = np.array([*prior["x_verbose"], *prior["x_concise"]], dtype=np.float64)
        design = np.stack([x, np.tile(values, 2), np.zeros(len(x))], axis=1)
        sums = np.array([prior["sum_yx"], prior["sum_yd"], 0.0])
        return Instruments(known, Pull(design, float(prior["weight"]), sums))
    except OSError as error:
        raise UserError(f"--lc-data {folder}: {Path(str(error.filename)).name}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--lc-data {folder}: not {_DIFFICULTY} and {_PRIOR} as they should be: {error!r}") from None


def controlled(
    judged: Sequence[Judged], instruments: Instruments | None, seed: int, c: float | None = None
) -> dict[str, Any]:
    """``rate`` in percent with its interval and how it came about; where there is none, ``reason`` says why."""
    rows = [row for row in judged if row.score is not None and row.lengths is not None]
    if not rows:
        return {"rate": None, "reason": "no row has a verdict and both lengths"}
    try:
        return _controlled(rows, instruments, seed, c)
    except NotConvergedError as error:
        return {"rate": None, "reason": str(error)}


def _controlled(rows: Sequence[Judged], instruments: Instruments | None, seed: int, c: float | None) -> dict[str, Any]:
    left_out = 0
    if instruments is not None:
        known = [row for row in rows if row.instruction_id in instruments.difficulty]
        left_out, rows = len(rows) - len(known), known
        if not rows:
            return {"rate": None, "reason": "no instruction is among those that --lc-data knows"}
        difficulty = [instruments.difficulty[row.instruction_id] for row in rows]
        data = _rows(rows, difficulty=difficulty)
        found = length.alpaca_fit(data, instruments.pull, seed, c)
    else:
        data = _rows(rows)
        found = length.prior_fit(data, seed)
    if found is None:
        return {"rate": None, "reason": "all lengths differ by the same"}
    return record(found) | {"unknown_instructions": left_out, "matched_lengths": _matched(data, seed)}


def of_outcomes(
    outcomes: Sequence[Outcome], control: Control, instruments: Instruments | None, seed: int
) -> dict[str, Any] | None:
    """The same for a comparison that was just judged, as shares; None where none is wanted."""
    if control is Control.off:
        return None
    rows = [
        Judged(
            prompt_id=outcome.pair.prompt_id,
            score=outcome.score,
            instruction_id=instruction_id(outcome.pair.conversation),
            lengths=(len(outcome.pair.baseline), len(outcome.pair.candidate)),
            texts=(outcome.pair.baseline, outcome.pair.candidate),
        )
        for outcome in outcomes
    ]
    style = styled(rows, seed)
    return as_shares(controlled(rows, instruments, seed)) | {"style": as_shares(style) if style else None}


def styled(judged: Sequence[Judged], seed: int) -> dict[str, Any] | None:
    """The rate at equal length and equal style (headers, list items, bold); None where texts are not at hand."""
    rows = [row for row in judged if row.score is not None and row.texts is not None]
    if not rows or len(rows) < sum(row.score is not None for row in judged):
        return None
    gaps = [style_gaps(*row.texts) for row in rows if row.texts is not None]
    try:
        found = length.prior_fit(_rows(rows, style=gaps), seed)
    except NotConvergedError:
        return None
    if found is None:
        return None
    names = ("headers", "list_items", "bold")
    labels = ("length", *names, "intercept") if found.coefficients else ()
    return record(found) | {"coefficients": dict(zip(labels, found.coefficients, strict=True))}


def style_gaps(baseline: str, candidate: str) -> list[float]:
    """Of headers, list items and bold text, outside of code: (baseline − candidate) / (their sum + 1)."""
    counts = [[len(mark.findall(_CODE.sub(" ", text))) for mark in _MARKS] for text in (baseline, candidate)]
    return [(base - cand) / (base + cand + 1) for base, cand in zip(*counts, strict=True)]


def as_shares(found: Mapping[str, Any]) -> dict[str, Any]:
    """A record's percent as shares, as result lines have them."""
    matched = found.get("matched_lengths")
    return {**found, **{name: _share(found[name]) for name in ("rate", "ci95", "overlap") if name in found}} | (
        {"matched_lengths": {**matched, **{name: _share(matched[name]) for name in ("win_rate", "ci95")}}}
        if matched
        else {}
    )


def _share(percent: Any) -> Any:
    return [end / 100 for end in percent] if isinstance(percent, list) else None if percent is None else percent / 100


def record(found: length.Controlled) -> dict[str, Any]:
    """A fit for JSON, in percent."""
    return {
        "rate": 100 * found.rate,
        "ci95": [100 * end for end in found.ci95],
        "ci95_method": found.ci95_method,
        "method": found.method,
        "coefficients": list(found.coefficients),
        "overlap": 100 * found.overlap,
        "extrapolated": found.extrapolated,
        "n": found.n,
    }


def _matched(data: length.Rows, seed: int) -> dict[str, Any] | None:
    near = length.matched(data, seed)
    if near is None:
        return None
    interval = {"ci95": [100 * end for end in near.ci95], "ci95_method": near.method}
    return {"win_rate": 100 * near.mean, **interval, "prompts": near.n}


def _rows(
    rows: Sequence[Judged], difficulty: Sequence[float] | None = None, style: Sequence[Sequence[float]] | None = None
) -> length.Rows:
    return length.rows(
        scores=[row.score for row in rows if row.score is not None],
        lengths=[row.lengths for row in rows if row.lengths is not None],
        clusters=[row.prompt_id for row in rows],
        difficulty=difficulty,
        style=style,
    )
