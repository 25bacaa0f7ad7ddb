"""Games: one pair of answers in one order; and what the games of a pair amount to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from prospect.judge.options import Orders
from prospect.judge.samples import Pair
from prospect.judge.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Game:
    """A pair as a judge sees it."""

    pair: Pair
    candidate_first: bool

    @property
    def shown(self) -> tuple[str, str]:
        """The two answers in the order shown."""
        both = (self.pair.candidate, self.pair.baseline)
        return both if self.candidate_first else both[::-1]


@dataclass(frozen=True, slots=True)
class Judgment:
    """What came of a game. No verdict: ``failed`` tells whether that is for want of a reply; ``reason`` says more."""

    game: Game
    verdict: Verdict | None
    text: str = ""
    reason: str = ""
    failed: bool = False

    @property
    def score(self) -> float | None:
        """1 where the candidate won, ½ for a tie, 0 where the baseline won."""
        if self.verdict is None:
            return None
        if self.verdict is Verdict.tie:
            return 0.5
        return float((self.verdict is Verdict.first) == self.game.candidate_first)


class Status(StrEnum):
    """How far a pair's games can be trusted."""

    ok = "ok"
    inconsistent = "inconsistent"  # the two orders have opposite winners
    half = "half"  # one of two games has no verdict: the other one counts
    unparsed = "unparsed"  # replies without a verdict
    failed = "failed"  # no reply at all


@dataclass(frozen=True, slots=True)
class Outcome:
    """A pair's score in [0, 1] for the candidate, None without any verdict; identical answers tie without a game."""

    pair: Pair
    status: Status
    score: float | None
    judgments: tuple[Judgment, ...]


def schedule(pairs: Iterable[Pair], orders: Orders) -> list[Game]:
    """The games to be judged. A random order depends on the texts alone, so both sides may change their names."""
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
    return [_outcome(pair, found.get((pair.prompt_id, pair.sample), [])) for pair in pairs]


def _outcome(pair: Pair, judgments: Sequence[Judgment]) -> Outcome:
    if not judgments:
        assert _identical(pair)
        return Outcome(pair, Status.ok, 0.5, ())
    scores = [judgment.score for judgment in judgments if judgment.score is not None]
    if not scores:
        status = Status.failed if any(judgment.failed for judgment in judgments) else Status.unparsed
        return Outcome(pair, status, None, tuple(judgments))
    status = Status.ok
    if len(scores) < len(judgments):
        status = Status.half
    elif {0.0, 1.0} <= set(scores):
        status = Status.inconsistent
    return Outcome(pair, status, sum(scores) / len(scores), tuple(judgments))


def _identical(pair: Pair) -> bool:
    return pair.candidate.strip() == pair.baseline.strip()


def _draw(pair: Pair, answer: str) -> bytes:
    return hashlib.sha256(f"{pair.prompt_id} {answer}".encode()).digest()
