"""What any two of a table have shown of each other: every p against all cases there are, and many tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from prospect.stats import bradley_terry, met, paired
from prospect.stats.bradley_terry import Standing, parts, standings
from prospect.stats.intervals import counts_test, sign_test
from prospect.stats.met import LEVEL, GapTest, Met, gaps
from tests.planted import plant


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(bradley_terry, "_DRAWS", 100)


def against_a_baseline(*runs: Sequence[float | None]) -> Met:
    """Run i's scores against the last one, prompt by prompt; None where it was not judged."""
    clusters = np.zeros((len(runs[0]), len(runs) + 1, len(runs) + 1))
    for i, scores in enumerate(runs):
        for prompt, score in enumerate(scores):
            if score is not None:
                clusters[prompt, i, -1], clusters[prompt, -1, i] = score, 1 - score
    return Met(clusters, [])


def test_five_wins_of_five_are_one_case_of_sixteen():
    first, second = standings(against_a_baseline([1.0] * 5), 1, 0)
    assert second.gap is not None
    assert (second.gap.p, second.gap.test, second.gap.method) == (0.0625, GapTest.met, "exact")
    assert (first.rank95, second.rank95, first.p_best, second.p_best) == ((1, 2), (1, 2), None, 0.0625)
    assert first.elo_ci95[0] < 1000 < first.elo_ci95[1] == math.inf


def test_what_connects_two_decides_their_test():
    clusters = np.zeros((3, 4, 4))
    clusters[:, 0, 2] = clusters[0, 1, 2] = clusters[1:, 2, 1] = 1.0
    found = gaps(Met(clusters, [(3, 2, 6, 0, 0)]), range(4), 0)
    tests = {pair: gap and (gap.test, round(3 * gap.difference), gap.p) for pair, gap in found.items()}
    assert tests[0, 1] == (GapTest.paired, 2, 0.5)  # against 2: 3 of 3, 1 of 3
    assert tests[0, 2] == (GapTest.met, 3, 0.25)
    assert tests[2, 3] == (GapTest.met_counts, -3, 2 / 64)
    assert tests[0, 3] == (GapTest.counts, 0, 1.0)  # against 2: 3 of 3, 6 of 6


def round_robin(rng: np.random.Generator, skill: Sequence[float], prompts: int) -> Met:
    """Each prompt is one pair's."""
    pairs = list(itertools.combinations(range(len(skill)), 2))
    clusters = np.zeros((prompts, len(skill), len(skill)))
    for prompt in range(prompts):
        i, j = pairs[prompt % len(pairs)]
        clusters[prompt, i, j] = won = float(rng.random() < 1 / (1 + math.exp(skill[j] - skill[i])))
        clusters[prompt, j, i] = 1 - won
    return Met(clusters, [])


def alarms(skill: Sequence[float]) -> float:
    """How often the first two are told apart, of 150 tables."""
    found = [gaps(round_robin(np.random.default_rng(s), skill, 60), [0, 1], 0)[0, 1] for s in range(150)]
    assert all(gap is not None and gap.test is GapTest.all_games for gap in found)
    return float(np.mean([gap is not None and gap.p < LEVEL for gap in found]))


def test_all_games_keep_the_level_and_see_more_than_their_own(monkeypatch):
    monkeypatch.setattr(paired, "_DRAWS", 500)
    assert alarms([0.5, 0.5, -1.0, 2.0]) < 0.1
    assert alarms([2.0, 0.0, 0.0, 1.0]) > 0.6


def test_nothing_is_said_of_different_prompts():
    none = gaps(against_a_baseline([1.0, 1.0, None, None], [None, None, 0.0, 0.0]), range(3), 0)
    assert none[0, 1] is None


def all_tables(first: tuple[int, int, int], second: tuple[int, int, int]) -> float:
    """The p of two groups' counts, by every way of choosing the first group's rows."""
    scores = [Fraction(2 - kind, 2) for group in (first, second) for kind, n in enumerate(group) for _ in range(n)]
    n, whole = sum(first), sum(scores)
    gap = [
        abs(Fraction(sum(some), n) - Fraction(whole - sum(some), len(scores) - n))
        for some in itertools.combinations(scores, n)
    ]
    return float(np.mean([each >= gap[0] for each in gap]))


@pytest.mark.parametrize(
    ("first", "second"),
    [((3, 0, 1), (1, 0, 4)), ((2, 2, 1), (0, 1, 3)), ((4, 0, 0), (0, 0, 4)), ((0, 2, 0), (1, 1, 1))],
)
def test_counts_against_every_table(first, second):
    assert counts_test(first, second, 0).value == pytest.approx(all_tables(first, second), rel=1e-9)
    assert counts_test(first, second, 0).value == pytest.approx(counts_test(second, first, 0).value)


def test_counts_of_many_rows_are_drawn():
    found = counts_test((3000, 3000, 3000), (3000, 3200, 2800), 0)
    assert found.method == "monte carlo"
    assert found.value == pytest.approx(0.068, abs=0.01)
    assert counts_test((9000, 0, 0), (0, 0, 9000), 0).value > 0
    assert sign_test(5000, 0) > 0


def table(rng: np.random.Generator) -> Met:
    """Two to five names, few prompts, lopsided games; some pairs by counts only, some prompts not judged."""
    m, n = int(rng.integers(2, 6)), int(rng.choice([1, 2, 4, 7, 12, 40]))
    skill, values = rng.normal(0, rng.choice([0.3, 3.0]), size=m), rng.choice([2, 4])
    clusters, counts = np.zeros((n, m, m)), []
    star = rng.random() < 0.5
    for i, j in itertools.combinations(range(m), 2):
        if (star and j < m - 1) or (not star and rng.random() < 0.3):
            continue
        chance = 1 / (1 + math.exp(skill[j] - skill[i]))
        if rng.random() < 0.25:
            won, tied, lost = map(int, rng.multinomial(n, [0.9 * chance, 0.1, 0.9 * (1 - chance)]))
            counts.append((i, j, won, tied, lost))
            continue
        known = rng.random(n) < rng.choice([0.5, 1.0])
        score = rng.binomial(values, chance, size=n) / values
        clusters[known, i, j], clusters[known, j, i] = score[known], 1 - score[known]
    return Met(clusters, counts)


def check(played: Met, lines: Sequence[Standing], anchor: int | None) -> None:
    """What a reader of the table would call a contradiction."""
    first, m = lines[0], len(lines)
    place = {line.index: line for line in lines}
    for line in lines[1:]:
        p = line.p_best
        assert p is None or line.gap is not None
        assert line.gap is None or line.gap.test is not GapTest.all_games or p is not None
        if p is not None and line.gap is not None:
            assert 0 < line.gap.p <= p <= 1
            assert line.gap.difference >= -1e-9, "the first is never the worse one of a gap with a p"
            assert line.gap.difference < 1e-9 or line.strength < first.strength
        apart = p is not None and p < LEVEL
        assert (line.rank95[0] > 1) == apart, "a place below the first is sure where the gap's p says so"
        assert apart or first.rank95[1] >= line.rank
    assert (first.rank95 == (1, 1)) == all(line.p_best is not None and line.p_best < LEVEL for line in lines[1:])
    for line in lines:
        low, high = line.elo_ci95
        assert 1 <= line.rank95[0] <= line.rank <= line.rank95[1] <= m
        assert low <= line.elo <= high
        assert line.index == anchor or high - low > 1, "no interval is a point"
    for (i, j), gap in gaps(played, [line.index for line in lines], 0).items():
        upper, lower = place[i], place[j]
        if upper.rank95[1] < lower.rank95[0]:
            assert gap is not None
            assert gap.p < LEVEL
            assert gap.difference > 0


def check_many(n: int) -> None:
    rng, seen = np.random.default_rng(1), 0
    while seen < n:
        played = table(rng)
        if len(parts(played.wins)) == 1:
            anchor = len(played.wins) - 1 if rng.random() < 0.7 else None
            check(played, standings(played, anchor, 0), anchor)
            seen += 1


def test_places_p_values_and_intervals_never_contradict_each_other():
    check_many(60)


def test_planted_bug_places_that_ignore_the_tests_are_noticed(monkeypatch):
    plant(monkeypatch, met.Apart.places, "self.adjusted.get((i, j), 1.0) >= LEVEL", "False")
    with pytest.raises(AssertionError, match="a place below"):
        check_many(60)


def test_planted_bug_gaps_that_point_the_other_way_are_noticed(monkeypatch):
    plant(monkeypatch, met.points_down, "return abs", "return True or abs")
    with pytest.raises(AssertionError, match="never the worse"):
        check_many(60)


def test_a_gap_is_that_of_paired():
    rng = np.random.default_rng(2)
    scores = rng.random((2, 60))  # off every grid: signs are drawn, the same ones
    found = gaps(against_a_baseline(*scores.tolist()), range(3), 7)[0, 1]
    want = paired.compare(scores[0], scores[1], 7)
    assert found is not None
    assert want is not None
    assert (found.p, found.method) == (want.permutation_p, "monte carlo")
