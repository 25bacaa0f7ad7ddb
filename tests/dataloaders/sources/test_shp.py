"""SHP: ratio and number of pairs in training, drawn by the seed; the first comment for SFT."""

from __future__ import annotations

from typing import Any

import pytest

from dataloaders.sources import shp
from dataloaders.sources.source import answers
from prospect.config.schema import Split


def row(post: str, a: str, b: str, score_a: Any = 9, score_b: Any = 3, **more: Any) -> dict[str, Any]:
    labels = int(score_a > score_b) if isinstance(score_a, int) and isinstance(score_b, int) else 1
    fields = {"history": post, "human_ref_A": a, "human_ref_B": b, "score_A": score_a, "score_B": score_b}
    return {**fields, "labels": labels, "domain": "askbaking_train", **more}


def train(load, rows: list[dict[str, Any]], **options: Any):
    return load("shp", rows, Split.train, test_fraction=0.0, **options)


def test_pairs_of_one_post_become_one_example_wherever_its_rows_stand(load):
    rows = [row("p", "bad", "good", 2, 8), row("q", "x", "y"), row("p", "good", "ugly  one", 8, 1)]
    (first, second), drops = train(load, rows)
    assert first.prompt[0].content == "p"
    assert first.answers == answers("bad", "good", "ugly one")
    assert first.pairs == ((1, 0), (1, 2))
    assert first.scores == (2.0, 8.0, 1.0)
    assert (first.imitate, first.keep, first.category) == (0, "start", "askbaking_train")
    assert second.answers == answers("x", "y")
    assert (drops.rows_read, drops.reasons) == (3, {})


@pytest.mark.parametrize(("split", "kept"), [(Split.train, 1), (Split.all, 2)])
def test_the_score_ratio_holds_in_training_only(load, split, kept):
    rows = [row("p", "a", "b", 4, 2), row("q", "a", "b", 3, 2)]
    examples, drops = load("shp", rows, split, test_fraction=0.0)
    assert len(examples) == kept
    assert drops.reasons == ({"scores differ by less than a factor of 2": 1} if split is Split.train else {})


def test_at_most_five_pairs_of_a_post_are_drawn_by_the_seed(load):
    rows = [row("p", f"a{i}", f"b{i}") for i in range(12)]
    (example,), drops = train(load, rows)
    assert len(example.pairs) == 5
    assert example.answers[0].content == "a0"
    texts = [answer.content for answer in example.answers]
    assert all(texts[i] == texts[j].replace("b", "a") for i, j in example.pairs)
    assert drops.reasons == {"more than 5 pairs of one post": 7}
    assert train(load, rows)[0] == [example]
    assert len({train(load, rows, seed=seed)[0][0].answers for seed in range(6)}) > 1
    (whole,), _ = load("shp", rows)
    assert len(whole.pairs) == 12


def test_a_broken_limit_is_noticed(load, monkeypatch):
    monkeypatch.setattr(shp, "MAX_PAIRS", 50)
    (example,), _ = train(load, [row("p", f"a{i}", f"b{i}") for i in range(12)])
    assert len(example.pairs) == 12


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("p", "a", "b", 5, 0), "score is not positive"),
        (row("p", "a", "b", float("nan"), 2), "`score_A` is no finite number"),
        (row("p", "a", "b", "9", 2), "`score_A` is no finite number"),
        (row("p", "a", "b", 9, None), "`score_B` is no finite number"),
        (row("p", " ", "b"), "empty answer"),
        (row("p", "a  b", "a b"), "chosen equals rejected"),
        (row("", "a", "b"), "empty prompt"),
        (row("p", "a", "b", labels=2), "`labels` is neither 0 nor 1"),
    ],
)
def test_bad_rows_are_dropped_and_counted(load, bad, reason):
    examples, drops = train(load, [row("fine", "a", "b"), bad])
    assert len(examples) == 1
    assert drops.reasons == {reason: 1}
