"""Games, outcomes and what they sum up to."""

from __future__ import annotations

import pytest

from prospect.judge.games import Game, Judgment, Outcome, Status, outcomes, schedule
from prospect.judge.options import Orders
from prospect.judge.samples import Pair
from prospect.judge.summary import summarise
from prospect.judge.verdict import Verdict

FIRST, SECOND, TIE = Verdict.first, Verdict.second, Verdict.tie


def pair(i: int, sample: int = 0, candidate: str = "", baseline: str = "") -> Pair:
    return Pair(f"prompt{i}", sample, f"Q{i}", candidate or f"c{i}{sample}", baseline or f"b{i}{sample}")


def judged(one: Pair, shown_first: Verdict | None, shown_second: Verdict | None, *, failed: bool = False) -> Outcome:
    """Outcome of a pair whose candidate was shown first, then second."""
    lacking = Status.failed if failed else Status.unparsed
    judgments = [
        Judgment(Game(one, True), shown_first, status=Status.ok if shown_first else lacking),
        Judgment(Game(one, False), shown_second, status=Status.ok if shown_second else lacking),
    ]
    return outcomes([one], judgments)[0]


@pytest.mark.parametrize(
    ("verdicts", "failed", "status", "score"),
    [
        ((FIRST, SECOND), False, Status.ok, 1.0),
        ((SECOND, FIRST), False, Status.ok, 0.0),
        ((TIE, TIE), False, Status.ok, 0.5),
        ((FIRST, TIE), False, Status.ok, 0.75),
        ((FIRST, FIRST), False, Status.inconsistent, 0.5),
        ((FIRST, None), False, Status.half, None),
        ((None, FIRST), True, Status.half, None),
        ((None, None), False, Status.unparsed, None),
        ((None, None), True, Status.failed, None),
    ],
)
def test_outcomes(verdicts, failed, status, score):
    outcome = judged(pair(0), verdicts[0], verdicts[1], failed=failed)
    assert (outcome.status, outcome.score) == (status, score)


def test_schedule():
    pairs = [pair(i) for i in range(40)] + [pair(99, candidate="same ", baseline="same")]
    both = schedule(pairs, Orders.both)
    assert len(both) == 80
    assert [game.candidate_first for game in both[:2]] == [True, False]
    assert all(game.candidate_first for game in schedule(pairs, Orders.fixed))
    drawn = [game.candidate_first for game in schedule(pairs, Orders.random)]
    assert 8 < sum(drawn) < 32
    swapped = [Pair(p.prompt_id, p.sample, p.conversation, p.baseline, p.candidate) for p in pairs]
    assert [game.candidate_first for game in schedule(swapped, Orders.random)] == [not first for first in drawn]
    assert outcomes(pairs[-1:], [])[0].score == 0.5


def test_prompt_is_the_unit():
    """One prompt with nine wins does not outweigh one with a loss."""
    rows = [judged(pair(0, k), FIRST, SECOND) for k in range(9)] + [judged(pair(1), SECOND, FIRST)]
    summary = summarise(rows, seed=0)
    assert (summary.total, summary.prompts, summary.wins, summary.losses) == (10, 2, 9, 1)
    assert summary.win_rate is not None
    assert (summary.win_rate.mean, summary.win_rate.n, summary.win_rate.method) == (0.5, 2, "exact")


def test_counts_add_up_and_bounds_hold_the_unknown():
    rows = [
        judged(pair(0), FIRST, SECOND),
        judged(pair(1), TIE, TIE),
        judged(pair(2), None, None),
        judged(pair(3), None, None, failed=True),
        judged(pair(4), FIRST, None),
    ]
    summary = summarise(rows, seed=0)
    assert summary.wins + summary.ties + summary.losses + summary.undecided == summary.total
    assert (summary.unparsed, summary.failed, summary.half, summary.unanswered) == (1, 1, 1, 1)
    assert (summary.lost.games, summary.lost.of) == (5, 10)
    assert (summary.lost.candidate_first, summary.lost.candidate_second) == (2, 3)
    assert summary.win_rate is not None
    assert (summary.win_rate.mean, summary.win_rate.n) == (0.75, 2)
    assert summary.bounds == pytest.approx((0.4, 0.9))
    assert summary.position is not None
    assert summary.position.pairs == 2
    assert summary.balanced


def test_one_order_alone_is_no_win_rate():
    """A judge that answers in one order only, and always "first", says nothing of the answers."""
    summary = summarise([judged(pair(i), FIRST, None) for i in range(20)], seed=0)
    assert (summary.win_rate, summary.wins, summary.half) == (None, 0, 20)
    assert summary.bounds == (0.5, 1.0)
    assert not summary.balanced


def test_balanced_is_said_only_where_each_pair_was_judged_in_both_orders():
    one_order = [outcomes([p], [Judgment(Game(p, True), FIRST)])[0] for p in map(pair, range(5))]
    assert not summarise(one_order, seed=0).balanced
    assert not summarise([judged(pair(9), FIRST, SECOND), *one_order], seed=0).balanced
    alike = outcomes([pair(7, candidate="same", baseline="same")], [])
    assert summarise([judged(pair(9), FIRST, SECOND), *alike], seed=0).balanced


def test_position_gap():
    rows = [judged(pair(i), FIRST, SECOND) for i in range(10)] + [
        judged(pair(10 + i), SECOND, SECOND) for i in range(30)
    ]
    position = summarise(rows, seed=0).position
    assert position is not None
    assert position.gap.mean == position.flip_rate == 0.75
    assert 0.5 < position.gap.ci95[0] < 0.75 < position.gap.ci95[1] < 0.95


def test_nothing_judged():
    summary = summarise([judged(pair(0), None, None)], seed=0)
    assert summary.win_rate is None
    assert summary.position is None
    assert summary.bounds == (0.0, 1.0)


def test_constant_answers_are_noticed():
    rows = [judged(pair(i, candidate="I win."), FIRST, SECOND) for i in range(4)]
    summary = summarise(rows, seed=0)
    assert (summary.candidate.distinct_share, summary.baseline.distinct_share) == (0.25, 1.0)
    assert summary.length_ratio == 2.0
