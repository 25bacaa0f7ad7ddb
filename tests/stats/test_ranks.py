"""Places, and the tests that they must not contradict."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from prospect.stats import permutation, ranks
from prospect.stats.ranks import Evidence, holm, places
from tests.planted import plant


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def lopsided(seed: int) -> np.ndarray:
    """Scores of some candidates on the same few or many prompts; the best first."""
    rng = np.random.default_rng(seed)
    rates = rng.choice([0.0, 0.1, 0.5, 0.55, 0.9, 1.0], size=rng.integers(2, 7))
    n = int(rng.choice([1, 2, 5, 6, 12, 60, 300]))
    scores = (rng.random((len(rates), n)) < rates[:, None]).astype(np.float64)
    return scores[np.argsort(-scores.mean(axis=1), kind="stable")]


def check_no_contradiction(seed: int) -> bool:
    scores = lopsided(seed)
    m = len(scores)
    table = places(range(m), lambda i, j: Evidence(scores[i] - scores[j]), seed)
    p = {(i, j): permutation.paired(scores[i] - scores[j], seed).p for i, j in combinations(range(m), 2)}
    for (i, j), alone in p.items():
        if table[i].rank95[1] < table[j].rank95[0]:
            assert alone < 0.05, "places are told apart, and the paired test does not"
    for j in range(1, m):
        adjusted = table[j].p
        assert adjusted is not None
        assert adjusted >= p[0, j]
        assert (adjusted < 0.05) == (table[j].rank95[0] > 1), "the first place is open to whoever is not told apart"
    assert all(place.rank95[0] <= place.rank <= place.rank95[1] for place in table)
    return True


@pytest.mark.parametrize("seed", range(40))
def test_places_and_tests_agree(seed):
    check_no_contradiction(seed)


def test_planted_bug_places_without_tests_are_noticed(monkeypatch):
    plant(monkeypatch, ranks.places, ", 1.0) >= _LEVEL]", ", 1.0) >= 0.5]")
    with pytest.raises(AssertionError):
        all(check_no_contradiction(seed) for seed in range(40))


def test_five_to_nothing():
    first, second = places([0, 1], lambda i, j: Evidence(np.full(5, 0.5)), 0)
    assert (first.p, first.rank95) == (None, (1, 2))
    assert (second.p, second.exact, second.test, second.rank95) == (2 / 32, True, "paired", (1, 2))


def test_where_nothing_can_be_said():
    table = places([0, 1, 2], lambda i, j: None, 0)
    assert [(place.p, place.rank95) for place in table] == [(None, (1, 3))] * 3


def test_shared_prompts_that_say_the_opposite_tell_nothing_apart():
    table = places([0, 1], lambda i, j: Evidence(np.full(40, -1.0)), 0)
    assert table[1].contradicted
    assert table[1].p is None
    assert table[1].rank95 == (1, 2)


def test_counts_are_unpaired():
    table = places([0, 1], lambda i, j: Evidence(counts=((60, 0, 40), (5, 0, 95))), 0)
    assert (table[1].test, table[1].rank95) == ("unpaired", (2, 2))
