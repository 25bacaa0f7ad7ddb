"""judgments/…jsonl: everything a comparison's figures come from, in a form that other tools read too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prospect.judge import judgments
from prospect.judge.calls import Patience
from prospect.judge.options import parse
from prospect.judge.readers import load_judgments
from prospect.judge.stage import compare
from prospect.judge.summary import summarise
from prospect.report.comparison import load
from tests.planted import plant

QUICK = Patience(base=0.002, cap=0.02)


def run(stub: Any, samples: Path, *flags: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result and the rows of its judgments."""
    base = samples.parent
    given = ["-f", str(samples), "-j", "stub", "--base-url", stub.url, "-r", str(base / "result.jsonl")]
    compare(parse([*given, "--cache", str(base / "cache"), *flags]), QUICK)
    result = json.loads((base / "result.jsonl").read_text().splitlines()[-1])
    return result, [json.loads(line) for line in Path(result["judgments"]).read_text().splitlines()]


def test_rows_hold_texts_games_and_who_answered(stub, samples):
    result, rows = run(stub, samples)
    assert len(rows) == result["total"] == 40
    scores = [row["score"] for row in rows if row["score"] is not None]
    assert sum(scores) / len(scores) == pytest.approx(result["win_rate"])
    for row in rows:
        assert row["preference"] == (None if row["score"] is None else 1 + row["score"])
        assert "Question" in row["instruction"]
        assert (row["output_1"][:6], row["output_2"][:6]) == ("Chosen", "Policy")
        assert (row["generator_1"], row["generator_2"], row["annotator"]) == ("chosen", "kto", "stub")
        assert [game["candidate_first"] for game in row["games"]] == [True, False]
        for game in row["games"]:
            assert (game["labels"], game["model"], len(game["key"])) == ("12", "stub-v1", 64)
            assert (game["prompt_tokens"], game["completion_tokens"]) == (100, 3)
            assert game["text"]
    silent = [row for row in rows if row["score"] is None]
    assert {row["status"] for row in silent} == {"unparsed"}
    assert len(silent) == 2


def test_the_same_comparison_takes_its_own_place_and_another_stands_beside(stub, samples):
    first, rows = run(stub, samples)
    again, same = run(stub, samples)
    assert (first["judgments"], rows) == (again["judgments"], same)
    other, few = run(stub, samples, "-mc", "5")
    assert other["judgments"] != first["judgments"]
    assert len(few) == 5
    assert len(list(Path(first["judgments"]).parent.iterdir())) == 2


def test_figures_can_be_had_again_from_the_rows(stub, samples):
    result, _ = run(stub, samples)
    found = summarise(load(Path(result["judgments"])).outcomes, result["seed"])
    assert found.win_rate is not None
    assert (found.win_rate.mean, list(found.win_rate.ci95)) == (result["win_rate"], result["ci95"])
    assert (found.wins, found.ties, found.losses) == (
        result["candidate"]["wins"],
        result["ties"],
        result["baseline"]["wins"],
    )
    assert found.unparsed == result["unparsed"]


def test_planted_bug_sides_changed_over_are_seen(stub, samples, monkeypatch):
    plant(monkeypatch, judgments._pair, '"output_1": pair.baseline', '"output_1": pair.candidate')
    with pytest.raises(AssertionError):
        assert run(stub, samples)[1][0]["output_1"].startswith("Chosen")


def test_a_pair_with_one_verdict_has_no_score_whatever_its_line_says(stub, samples):
    """Older versions wrote the other game's score down."""
    stub.judge = lambda first, second: "Response 1" if first.startswith("Policy") else "Hard to say."
    run(stub, samples)
    (file,) = (samples.parent / "judgments").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {(line["status"], line["score"], line["preference"]) for line in lines} == {("half", None, None)}
    file.write_text("".join(json.dumps(line | {"score": 1.0, "preference": 2.0}) + "\n" for line in lines))
    assert {(row.score, row.bounds) for row in load_judgments(file).rows} == {(None, (0.5, 1.0))}
    assert {outcome.score for outcome in load(file).outcomes} == {None}
