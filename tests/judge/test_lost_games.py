"""Games without a verdict: the bounds hold what would have come out without the loss."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from prospect.judge import judged
from tests.judge.conftest import longer_wins, texts_of
from tests.judge.test_run import run
from tests.planted import plant

Loses = Callable[[int, bool], bool]  # (number of the prompt, whether the candidate is shown first) → the game is lost

ORDERS: dict[str, Loses] = {
    "candidate first": lambda i, first: first,
    "candidate second": lambda i, first: not first,
    "now this, now that": lambda i, first: first == (i % 2 == 0),
    "both": lambda i, first: True,
}
MOMENTS: dict[str, Loses] = {
    "early": lambda i, first: i < 4,
    "late": lambda i, first: i >= 9,
    "here and there": lambda i, first: i % 3 == 1,
}
FAULTS = ("unparsed", "refused", "truncated", "failed")


@pytest.fixture
def dozen(samples):
    """Twelve of the samples."""
    content = json.loads(samples.read_text())
    samples.write_text(json.dumps(content | {"samples": content["samples"][8:20]}))
    return samples


def both(one: Loses, other: Loses) -> Loses:
    return lambda number, first: one(number, first) and other(number, first)


def lose(stub: Any, fault: str, loses: Loses) -> None:
    """Have the stub's judge lose games in one of the ways that there are."""

    def is_lost(texts: list[str]) -> bool:
        asked = re.search(r"Question (\d+)", texts[0]) if texts else None
        return asked is not None and loses(int(asked[1]) - 8, texts[-2].startswith("Policy"))

    def refuses(body: dict[str, Any]) -> str | None:
        return "too long" if fault == "failed" and is_lost(texts_of(body["messages"][-1]["content"])) else None

    answer = stub.completion

    def completion(body: dict[str, Any], texts: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = answer(body, texts)
        if is_lost(texts):
            choice = found["choices"][0]
            words = {
                "unparsed": "Hard to say.",
                "refused": "I'm sorry, I cannot judge this.",
                "truncated": "Response 1",
            }
            choice["message"]["content"] = words[fault]
            choice["finish_reason"] = "length" if fault == "truncated" else "stop"
        return found

    stub.refuses, stub.completion = refuses, completion


def check_matrix(stub: Any, samples: Any) -> None:
    """Every order at every moment, the faults in turn: each meets all orders and all moments."""
    stub.judge = lambda first, second: longer_wins(first.replace("mumble", "word"), second.replace("mumble", "word"))
    _, whole = run(stub, samples, "--lc", "off")
    assert whole["bounds"] == [whole["win_rate"]] * 2
    cells = itertools.product(enumerate(ORDERS), enumerate(MOMENTS))
    for (i, order), (j, moment) in cells:
        fault = FAULTS[(i + j) % len(FAULTS)]
        server = type(stub)()
        server.judge = stub.judge
        lose(server, fault, both(ORDERS[order], MOMENTS[moment]))
        code, result = run(server, samples, "--lc", "off")
        server.close()
        where = f"{fault}, {order}, {moment}"
        low, high = result["bounds"]
        assert low <= whole["win_rate"] <= high, where
        assert low < high, where
        lost = result["games_lost"]
        assert lost["games"] == lost[fault] > 0, where
        assert result["half"] == (0 if order == "both" else lost["games"]), where
        assert code == (3 if fault == "failed" else 0), where


def test_bounds_hold_the_undisturbed_rate(stub, dozen):
    check_matrix(stub, dozen)


def test_planted_bug_a_missing_game_that_counts_as_its_twin_is_seen(stub, dozen, monkeypatch):
    plant(
        monkeypatch,
        judged.score_bounds,
        "return known / len(scores)",
        "return known / max(1, sum(s is not None for s in scores))",
    )
    with pytest.raises(AssertionError):
        check_matrix(stub, dozen)


def test_a_judge_of_one_order_has_no_headline(stub, dozen, capsys):
    """It answers only if the candidate is shown first, and then always for the first."""
    stub.judge = lambda first, second: "Response 1" if first.startswith("Policy") else "Both have their merits."
    code, result = run(stub, dozen)
    told = capsys.readouterr()
    assert (code, result["win_rate"], result["half"], result["candidate"]["wins"]) == (3, None, 12, 0)
    assert result["bounds"] == [0.5, 1.0]
    assert "no pair has all its games" in told.out
    assert "12 of 24 games lost: 50.0% to 100.0% if all of these were lost or won" in told.out
    assert "0 with the candidate shown first, 12 with it second" in told.err
    assert "balanced" not in told.err


def test_weights_that_are_missing_are_said(stub, dozen, capsys):
    """AlpacaEval's prompt at a server that ignores log-probabilities."""
    stub.judge = lambda first, second: "m" if len(first) > len(second) else "M"
    run(stub, dozen, "--prompt", "alpacaeval")
    assert "24 of 24 verdicts are 0 or 1" in capsys.readouterr().err
