"""Result lines: one comparison each, as HALOs' compare.py and ours append them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prospect.errors import UserError
from prospect.judge import published
from prospect.judge.readers import setting_of
from prospect.judge.tables import Row, load_rows


@dataclass(frozen=True, slots=True)
class Run:
    """Counts of one comparison. ``unparsed`` is whatever has no verdict: HALOs did not say which. ``setting`` is the
    judge's endpoint and prompt ("" where the line does not say); ``baseline`` tells baselines apart, by the hash of
    their answers where the line has it."""

    name: str
    judge: str
    setting: str
    baseline: str
    baseline_name: str
    wins: int
    losses: int
    ties: int
    unparsed: int
    judgments: Path | None
    line: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """HALOs' figures, and our win rate where the line has one."""
        own = {key: self.line[key] for key in ("win_rate", "se", "ci95", "bounds", "position") if key in self.line}
        return published.halos(self.line, self.unparsed, self.ties) | own


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """All lines of some results files.

    Raises:
        UserError: one is no result line.
    """
    return [_run(row, path, number) for path in paths for number, row in enumerate(load_rows(path), 1)]


def _run(row: Row, path: Path, number: int) -> Run:
    try:
        wins, losses, total = int(row["candidate"]["wins"]), int(row["baseline"]["wins"]), int(row["total"])
        ties = int(row.get("ties") or 0)
        prompt = row.get("prompt")
        prompt_hash = prompt["sha256"] if isinstance(prompt, dict) else ""
        name = str(row["baseline"]["name"])
        if min(wins, losses, ties, total - wins - losses - ties) < 0:
            raise ValueError(f"{wins} wins, {losses} losses and {ties} ties do not fit a total of {total}")
        written = row.get("judgments")
        return Run(
            name=str(row["exp_name"]),
            judge=str(row["judge"]),
            setting=setting_of(row.get("endpoint"), prompt_hash, row),
            baseline=str(row["baseline"].get("answers_sha256") or name),
            baseline_name=name,
            wins=wins,
            losses=losses,
            ties=ties,
            unparsed=total - wins - losses - ties,
            judgments=Path(written) if isinstance(written, str) else None,
            line=row,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: line {number}: not a result of compare.py: {error!r}") from None
