"""A judged pair of answers, whatever file it stands in: what every figure is computed from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Key = tuple[str, int]


def mean_score(scores: Sequence[float | None]) -> float | None:
    """A pair's score: the mean of its games; None where one has no verdict, or there are none."""
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def score_bounds(scores: Sequence[float | None]) -> tuple[float, float]:
    """A pair's score if each game without a verdict (None) were lost, and if it were won; (0, 1) without games."""
    if not scores:
        return 0.0, 1.0
    known = math.fsum(score for score in scores if score is not None)
    return known / len(scores), (known + sum(score is None for score in scores)) / len(scores)


@dataclass(frozen=True, slots=True)
class Shown:
    """One game: the candidate's score in [0, 1] (None: no verdict), and whether it was shown first. ``weight`` is how
    often Arena-Hard counts it."""

    candidate_first: bool
    score: float | None
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Judged:
    """``score`` is the candidate's in [0, 1], None where a game has no verdict. ``prompt_id`` is the cluster;
    ``instruction_id`` the first 12 hexadecimal digits of the instruction's SHA-256 ("" where it is unknown). Lengths
    are in characters, baseline's first. ``baseline_mark`` tells whether two rows were judged against the same answer.
    ``setting`` stands for the judge's prompt and endpoint."""

    prompt_id: str
    score: float | None
    sample: int = 0
    games: tuple[Shown, ...] = ()
    failed: bool = False
    candidate: str = ""
    baseline: str = ""
    judge: str = ""
    setting: str = ""
    category: str = ""
    instruction_id: str = ""
    lengths: tuple[int, int] | None = None
    texts: tuple[str, str] | None = None
    baseline_mark: str = ""

    @property
    def bounds(self) -> tuple[float, float]:
        """The score if every game without a verdict were lost, and if it were won."""
        if self.score is not None:
            return self.score, self.score
        return score_bounds([game.score for game in self.games])

    @property
    def key(self) -> Key:
        """What joins it with another candidate's row."""
        return self.prompt_id, self.sample

    def mean(self, candidate_first: bool) -> float | None:
        """Of the games in one order, repetitions included; None without a verdict."""
        scores = [game.score for game in self.games if game.candidate_first == candidate_first]
        known = [score for score in scores if score is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True)
class Judgments:
    """The rows of one file, and what kind of file it is (see ``readers``)."""

    name: str
    kind: str
    rows: Sequence[Judged]
    notes: Sequence[str] = ()

    def of(self, candidate: str) -> Judgments:
        """One candidate's rows."""
        return Judgments(self.name, self.kind, [row for row in self.rows if row.candidate == candidate], self.notes)

    @property
    def candidates(self) -> list[str]:
        """Everybody who was judged, in the file's order."""
        return list(dict.fromkeys(row.candidate for row in self.rows))
