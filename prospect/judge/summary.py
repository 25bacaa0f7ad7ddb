"""What all outcomes of a comparison say: a win rate with its interval, and whether the judge can be trusted."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prospect.judge.games import Outcome, Status
from prospect.judge.samples import Pair
from prospect.stats.bootstrap import Estimate, cluster_means, estimate, estimate_difference
from prospect.stats.intervals import Interval, clopper_pearson, sign_test, wilson


@dataclass(frozen=True, slots=True)
class Decisive:
    """Prompts that one side won, ties left out: shares of them, and the sign test."""

    wins: int
    losses: int
    wilson95: Interval
    clopper_pearson95: Interval
    sign_test_p: float


@dataclass(frozen=True, slots=True)
class Position:
    """What the order did: the candidate's score when shown second less that when shown first, over pairs judged in
    both orders; and the share of these whose verdict did not survive the swap."""

    gap: Estimate
    flip_rate: float
    pairs: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Games without a verdict, ``of`` all games: by what became of them, and by the order in which they were shown."""

    of: int
    truncated: int
    refused: int
    unparsed: int
    failed: int
    candidate_first: int
    candidate_second: int

    @property
    def games(self) -> int:
        """All of them."""
        return self.candidate_first + self.candidate_second


@dataclass(frozen=True, slots=True)
class Answers:
    """One side's answers: lengths in characters, how many differ, and a hash of all of them with their prompts, by
    which comparisons with the same baseline are known."""

    lengths: tuple[int, ...]
    distinct: int
    sha256: str

    @property
    def distinct_share(self) -> float:
        """1 where no answer comes twice; a constant answer can fool a judge."""
        return self.distinct / len(self.lengths)


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts are of pairs; wins + ties + losses + half + truncated + refused + unparsed + failed = total. ``win_rate``
    is the mean over the pairs that have all their games; ``bounds``: over all pairs, if every game without a verdict
    were lost, and if it were won. ``balanced``: every pair of the win rate was judged in both orders, so that a liking
    for a place cancels out. ``unanswered``: pairs with a game that got no reply. ``noise``: the standard deviation
    between repetitions of the same game, where there are any."""

    total: int
    prompts: int
    wins: int
    ties: int
    losses: int
    truncated: int
    refused: int
    unparsed: int
    failed: int
    inconsistent: int
    half: int
    unanswered: int
    lost: Lost
    win_rate: Estimate | None
    bounds: Interval
    balanced: bool
    decisive: Decisive
    position: Position | None
    noise: float | None
    candidate: Answers
    baseline: Answers
    length_control: Mapping[str, Any] | None = None

    @property
    def undecided(self) -> int:
        """Pairs that lack a game's verdict: they stand in the bounds alone."""
        return self.half + self.truncated + self.refused + self.unparsed + self.failed

    @property
    def length_ratio(self) -> float | None:
        """Mean length of the candidate's answers over the baseline's."""
        theirs = sum(self.baseline.lengths)
        return sum(self.candidate.lengths) / theirs if theirs else None


def summarise(outcomes: Sequence[Outcome], seed: int) -> Summary:
    """All figures of a comparison; ``seed`` is the bootstrap's."""
    scores = [outcome.score for outcome in outcomes if outcome.score is not None]
    counts = {status: sum(outcome.status is status for outcome in outcomes) for status in Status}
    scored = [(outcome.pair.prompt_id, outcome.score) for outcome in outcomes if outcome.score is not None]
    means = cluster_means(scored)
    return Summary(
        total=len(outcomes),
        prompts=len({outcome.pair.prompt_id for outcome in outcomes}),
        wins=sum(score > 0.5 for score in scores),
        ties=sum(score == 0.5 for score in scores),
        losses=sum(score < 0.5 for score in scores),
        truncated=counts[Status.truncated],
        refused=counts[Status.refused],
        unparsed=counts[Status.unparsed],
        failed=counts[Status.failed],
        inconsistent=counts[Status.inconsistent],
        half=counts[Status.half],
        unanswered=sum(any(judgment.failed for judgment in outcome.judgments) for outcome in outcomes),
        lost=_lost(outcomes),
        win_rate=estimate(means, seed),
        bounds=_bounds(outcomes),
        balanced=_balanced(outcomes),
        decisive=_decisive(int((means > 0.5).sum()), int((means < 0.5).sum())),
        position=_position(outcomes, seed),
        noise=_noise(outcomes),
        candidate=_answers([outcome.pair for outcome in outcomes], [outcome.pair.candidate for outcome in outcomes]),
        baseline=_answers([outcome.pair for outcome in outcomes], [outcome.pair.baseline for outcome in outcomes]),
    )


def _bounds(outcomes: Sequence[Outcome]) -> Interval:
    low, high = (cluster_means((o.pair.prompt_id, o.bounds[side]) for o in outcomes) for side in (0, 1))
    return math.fsum(low) / len(low), math.fsum(high) / len(high)


def _balanced(outcomes: Sequence[Outcome]) -> bool:
    """False, too, where no pair is whole."""
    whole = [outcome for outcome in outcomes if outcome.score is not None and outcome.judgments]
    return bool(whole) and all(len({game.game.candidate_first for game in o.judgments}) == 2 for o in whole)


def _lost(outcomes: Sequence[Outcome]) -> Lost:
    lost = [judgment for outcome in outcomes for judgment in outcome.lost]
    states = Counter(judgment.status for judgment in lost)
    first = sum(judgment.game.candidate_first for judgment in lost)
    return Lost(
        of=sum(len(outcome.judgments) for outcome in outcomes),
        truncated=states[Status.truncated],
        refused=states[Status.refused],
        unparsed=states[Status.unparsed],
        failed=states[Status.failed],
        candidate_first=first,
        candidate_second=len(lost) - first,
    )


def _decisive(wins: int, losses: int) -> Decisive:
    n = wins + losses
    return Decisive(wins, losses, wilson(wins, n), clopper_pearson(wins, n), sign_test(wins, losses))


def _position(outcomes: Sequence[Outcome], seed: int) -> Position | None:
    """None without pairs that have a verdict in both orders."""
    gaps, flips = [], 0
    for outcome in outcomes:
        scores = {side: _scores(outcome, side) for side in (True, False)}
        if scores[True] and scores[False]:
            first, second = (math.fsum(found) / len(found) for found in (scores[True], scores[False]))
            gaps.append((outcome.pair.prompt_id, second - first))
            flips += _winner(first) != _winner(second)
    gap = estimate_difference(cluster_means(gaps), seed)
    if gap is None:
        return None
    return Position(gap, flips / len(gaps), len(gaps))


def _scores(outcome: Outcome, candidate_first: bool) -> list[float]:
    """Of the games in one order, repetitions included."""
    games = [judgment for judgment in outcome.judgments if judgment.game.candidate_first == candidate_first]
    return [judgment.score for judgment in games if judgment.score is not None]


def _winner(score: float) -> int:
    return (score > 0.5) - (score < 0.5)


def _noise(outcomes: Sequence[Outcome]) -> float | None:
    """√(mean variance of a game's repetitions)."""
    repeated = [scores for outcome in outcomes for side in (True, False) if len(scores := _scores(outcome, side)) > 1]
    if not repeated:
        return None
    return math.sqrt(math.fsum(statistics.variance(scores) for scores in repeated) / len(repeated))


def _answers(pairs: Sequence[Pair], texts: Sequence[str]) -> Answers:
    whose = sorted((pair.prompt_id, pair.sample, text) for pair, text in zip(pairs, texts, strict=True))
    return Answers(tuple(map(len, texts)), len(set(texts)), hashlib.sha256(json.dumps(whose).encode()).hexdigest())
