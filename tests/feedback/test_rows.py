"""From scores to pairs, labels and scored answers."""

from __future__ import annotations

import random
from typing import Any

import pytest

from prospect.conversation import answered, asked
from prospect.feedback import rows
from prospect.feedback.answers import Group, Sampled
from prospect.feedback.options import Choice, Kind
from prospect.feedback.rows import Scored
from tests.planted import plant


def scored(*values: float, name: str = "p") -> tuple[Group, list[Scored]]:
    group = Group(name, asked(f"Question {name}?"), "shop", "")
    return group, [
        Scored(Sampled(f"run/policy/{i}", answered(f"{name} answer {i}")), value) for i, value in enumerate(values)
    ]


def pairs(
    scores: Any, choice: Choice = Choice.best_worst, threshold: float = 0.0, seed: int = 0
) -> list[tuple[float, float]]:
    found = rows.rows(scores, Kind.pairwise, choice, threshold, seed)
    return [(row["score_chosen"], row["score_rejected"]) for row in found]


def test_best_and_worst() -> None:
    (row,) = rows.rows([scored(3.0, 9.0, 1.0, 5.0)], Kind.pairwise, Choice.best_worst, 0.0, 0)
    assert row == {
        "prompt": [{"role": "user", "content": "Question p?"}],
        "prompt_id": "p",
        "samples": ["run/policy/1", "run/policy/2"],
        "from_dataset": "shop",
        "chosen": [{"role": "assistant", "content": "p answer 1"}],
        "rejected": [{"role": "assistant", "content": "p answer 2"}],
        "score_chosen": 9.0,
        "score_rejected": 1.0,
    }


@pytest.mark.parametrize(
    ("threshold", "wanted"), [(0.0, (3.5, 3.0)), (0.5, (3.5, 3.0)), (0.6, (3.0, 1.0)), (3.0, (9.0, 3.5)), (8.1, None)]
)
def test_closest_above_the_threshold(threshold, wanted):
    assert pairs([scored(3.0, 9.0, 1.0, 3.5)], Choice.closest, threshold) == ([wanted] if wanted else [])


def test_equal_scores_make_no_pair():
    for choice in Choice:
        assert pairs([scored(2.0, 2.0, 2.0)], choice) == []


def test_random_pairs_depend_on_seed_and_texts_alone():
    groups = [scored(*range(6), name=f"p{i}") for i in range(200)]
    found = dict(zip((group.prompt_id for group, _ in groups), pairs(groups, Choice.random, 2.0), strict=True))
    assert all(high - low >= 2.0 for high, low in found.values())
    assert len(set(found.values())) == 10, "every pair that is far enough comes up"
    random.Random(1).shuffle(groups)
    assert [found[group.prompt_id] for group, _ in groups] == pairs(groups, Choice.random, 2.0)
    assert pairs(groups, Choice.random, 2.0, seed=1) != pairs(groups, Choice.random, 2.0)


@pytest.mark.parametrize(
    ("threshold", "labels"), [("mean", [0, 0, 1]), ("median", [0, 1, 1]), (0.0, [1, 1, 1]), (9.5, [0, 0, 0])]
)
def test_labels(threshold, labels):
    groups = [scored(1.0, 2.0), scored(9.0, name="q")]
    found = list(rows.rows(groups, Kind.binary, Choice.best_worst, threshold, 0))
    assert [int(row["label"]) for row in found] == labels
    assert [row["completion"][0]["content"] for row in found] == ["p answer 0", "p answer 1", "q answer 0"]
    assert {row["threshold"] for row in found} == {{"mean": 4.0, "median": 2.0}.get(threshold, threshold)}


def test_scores():
    found = list(rows.rows([scored(1.0, 2.5)], Kind.scored, Choice.best_worst, 0.0, 0))
    assert [row["score"] for row in found] == [1.0, 2.5]
    assert "label" not in found[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [("if a.score > b.score", "if a.score < b.score"), ("max(far", "min(far"), ("(a, b) if", "(b, b) if")],
)
def test_planted_bugs_are_seen(monkeypatch, old, new):
    plant(monkeypatch, rows._pair, old, new)
    with pytest.raises((AssertionError, ValueError)):
        test_best_and_worst()
