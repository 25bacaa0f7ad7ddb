"""Games: one pair of answers in one order; and what the games of a pair amount to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from prospect.judge.judged import mean_score, score_bounds
from prospect.judge.options import Orders
from prospect.judge.reply import Completion
from prospect.judge.samples import Pair
from prospect.judge.speech import Verdict


class Status(StrEnum):
    """How far a game or a pair can be trusted. From ``half`` on a pair is not whole: it has no score."""

    ok = "ok"
    inconsistent = "inconsistent"  # the two orders have opposite winners
    half = "half"  # some of the pair's games have a verdict, some have none
    truncated = "truncated"  # the reply was cut off before its end
    refused = "refused"  # the judge declined
    unparsed = "unparsed"  # replies without a verdict
    failed = "failed"  # no reply at all


WORST_FIRST = (Status.failed, Status.truncated, Status.refused, Status.unparsed)


@dataclass(frozen=True, slots=True)
class Game:
    """A pair as a judge sees it; ``repeat`` counts from 0 where the judge is asked several times."""

    pair: Pair
    candidate_first: bool
    repeat: int = 0

    @property
    def shown(self) -> tuple[str, str]:
        """The two answers in the order shown."""
        both = (self.pair.candidate, self.pair.baseline)
        return both if self.candidate_first else both[::-1]


@dataclass(frozen=True, slots=True)
class Judgment:
    """What came of a game. No verdict: ``status`` tells why, ``reason`` says more. ``share`` is the first answer's part
    of the labels' weight, where the judge gave weights, and ``outside`` the probability that other tokens had;
    ``scores`` are a rubric's of the two answers shown. ``key`` and ``labels`` find and read the raw reply again;
    ``reply`` is what was read of it."""

    game: Game
    verdict: Verdict | None
    text: str = ""
    reason: str = ""
    status: Status = Status.ok
    how: str = ""
    strong: bool = False
    share: float | None = None
    outside: float | None = None
    scores: tuple[float, float] | None = None
    key: str = ""
    labels: str = ""
    reply: Completion | None = field(default=None, compare=False)

    @property
    def failed(self) -> bool:
        """Whether there is no reply."""
        return self.status is Status.failed

    @property
    def score(self) -> float | None:
        """1 where the candidate won, ½ for a tie, 0 where the baseline won; a share where there are weights."""
        if self.verdict is None:
            return None
        first = self.share
        if first is None:
            first = {Verdict.first: 1.0, Verdict.tie: 0.5, Verdict.second: 0.0}[self.verdict]
        return first if self.game.candidate_first else 1.0 - first


@dataclass(frozen=True, slots=True)
class Outcome:
    """A pair's score in [0, 1] for the candidate: the mean of its games. None where a game has no verdict: what the
    other games say may be the judge's liking for a place. Identical answers tie without a game."""

    pair: Pair
    status: Status
    score: float | None
    judgments: tuple[Judgment, ...]

    @property
    def lost(self) -> tuple[Judgment, ...]:
        """The games without a verdict."""
        return tuple(judgment for judgment in self.judgments if judgment.score is None)

    @property
    def bounds(self) -> tuple[float, float]:
        """The score if every game without a verdict were lost, and if it were won."""
        if self.score is not None:
            return self.score, self.score
        return score_bounds([judgment.score for judgment in self.judgments])


def schedule(pairs: Iterable[Pair], orders: Orders, repeat: int = 1) -> list[Game]:
    """The games to be judged. A random order depends on the texts alone, so both sides may change their names."""
    games = _once(pairs, orders)
    return [replace(game, repeat=i) for game in games for i in range(repeat)]


def _once(pairs: Iterable[Pair], orders: Orders) -> list[Game]:
    games = []
    for pair in pairs:
        if _identical(pair):
            continue
        if orders is Orders.both:
            games += [Game(pair, True), Game(pair, False)]
        elif orders is Orders.fixed:
            games.append(Game(pair, True))
        else:
            games.append(Game(pair, _draw(pair, pair.candidate) < _draw(pair, pair.baseline)))
    return games


def outcomes(pairs: Iterable[Pair], judgments: Iterable[Judgment]) -> list[Outcome]:
    """One outcome a pair, in the pairs' order."""
    found: dict[tuple[str, int], list[Judgment]] = {}
    for judgment in judgments:
        pair = judgment.game.pair
        found.setdefault((pair.prompt_id, pair.sample), []).append(judgment)
    return [outcome(pair, found.get((pair.prompt_id, pair.sample), [])) for pair in pairs]


def outcome(pair: Pair, judgments: Sequence[Judgment]) -> Outcome:
    """What all games of one pair amount to.

    Raises:
        ValueError: there are none, though the answers differ.
    """
    if not judgments:
        if not _identical(pair):
            raise ValueError("different answers without a game")
        return Outcome(pair, Status.ok, 0.5, ())
    scores = [judgment.score for judgment in judgments if judgment.score is not None]
    if not scores:
        found = {judgment.status for judgment in judgments}
        status = next(status for status in WORST_FIRST if status in found)
        return Outcome(pair, status, None, tuple(judgments))
    score = mean_score([judgment.score for judgment in judgments])
    if score is None:
        return Outcome(pair, Status.half, None, tuple(judgments))
    status = Status.inconsistent if min(scores) < 0.5 < max(scores) else Status.ok
    return Outcome(pair, status, score, tuple(judgments))


def _identical(pair: Pair) -> bool:
    return pair.candidate.strip() == pair.baseline.strip()


def _draw(pair: Pair, answer: str) -> bytes:
    return hashlib.sha256(f"{pair.prompt_id} {answer}".encode()).digest()
