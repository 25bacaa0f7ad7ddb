"""Files of other tools: what a row means, and their own figures from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prospect.errors import UserError
from prospect.judge import commands, published
from prospect.judge.judged import Shown
from prospect.judge.readers import instruction_id, load_judgments, weighted_preference


def write(folder: Path, rows: Any, name: str = "x.jsonl") -> Path:
    file = folder / name
    file.write_text("\n".join(map(json.dumps, rows)) if name.endswith("l") else json.dumps(rows, indent=1))
    return file


def answer_of(capsys, *arguments: str) -> dict[str, Any]:
    assert commands.run([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def mt_row(question: int, first: str, second: str, turn: int = 1, **names: str) -> dict[str, Any]:
    sides = {"model_1": "mine", "model_2": "base"} | names
    games = {"g1_winner": first, "g2_winner": second, "judge": ["gpt-4", "pair-v2"]}
    return {"question_id": question, "turn": turn, **sides, **games}


def test_mt_bench_pairs(tmp_path, capsys):
    rows = [
        mt_row(1, "model_1", "model_1"),
        mt_row(2, "model_1", "model_2"),  # the orders disagree: MT-Bench's tie, our ½
        mt_row(3, "tie", "model_1"),  # MT-Bench's tie, our ¾
        mt_row(4, "model_2", "model_2", turn=2),
        mt_row(5, "error", "model_1"),  # dropped by both: one order alone says what the place does, too
    ]
    file = write(tmp_path, rows, "gpt-4_pair.jsonl")
    judgments = load_judgments(file)
    assert [row.score for row in judgments.rows] == [1.0, 0.5, 0.75, 0.0, None]
    assert {(row.candidate, row.baseline, row.judge) for row in judgments.rows} == {("mine", "base", "gpt-4 pair-v2")}
    assert published.mt_bench(judgments.rows) == {
        "win": 1, "loss": 1, "tie": 2, "n": 4, "win_rate": 0.25, "loss_rate": 0.25, "win_rate_adjusted": 0.5
    }  # fmt: skip
    turned = load_judgments(file, baseline="mine")
    assert [row.score for row in turned.rows] == [0.0, 0.5, 0.25, 1.0, None]
    assert turned.rows[0].games == (Shown(False, 0.0), Shown(True, 0.0))
    record = answer_of(capsys, "aggregate", str(file))
    assert record["published"]["win_rate_adjusted"] == 0.5
    with pytest.raises(UserError, match="--baseline nobody"):
        load_judgments(file, baseline="nobody")


def test_mt_bench_of_several_models(tmp_path, capsys):
    rows = [mt_row(i, "model_1", "model_1", model_1=name) for i in range(3) for name in ("a", "b")]
    record = answer_of(capsys, "aggregate", str(write(tmp_path, rows)))
    assert [(model["candidate"], model["baseline"], model["win_rate"]) for model in record["models"]] == [
        ("a", "base", 100.0),
        ("b", "base", 100.0),
    ]


def test_mt_bench_grades(tmp_path, capsys):
    rows = [
        {"question_id": q, "model": model, "judge": ["gpt-4", "single-v1"], "score": score, "turn": turn}
        for model, shift in (("mine", 1.0), ("base", 0.0))
        for q, turn, score in ((1, 1, 6 + shift), (1, 2, 4.0), (2, 1, -1 if shift else 3), (3, 1, 5.05 + shift / 20))
    ]
    file = write(tmp_path, rows, "gpt-4_single.jsonl")
    mine, base = answer_of(capsys, "aggregate", str(file), "--baseline", "base")["models"]
    assert (mine["turn_1"], mine["turn_2"]) == (pytest.approx((7 + 5.1) / 2), 4.0)
    assert mine["n"] == 3
    assert mine["win_rate"] == pytest.approx(100 * (0.75 + 0.5) / 2)  # a win and a tie on question 1, a tie on 3
    assert "win_rate" not in base


def arena_row(uid: str, first: str | None, second: str | None, model: str = "mine") -> dict[str, Any]:
    games = [None if score is None else {"score": score} for score in (first, second)]
    return {"uid": uid, "category": "hard", "judge": "j", "model": model, "baseline": "o3", "games": games}


def test_arena_hard(tmp_path, capsys):
    """The baseline is A in the first game; strong verdicts count three times there, once here."""
    rows = [arena_row("a", "B>>A", "A>B"), arena_row("b", "A=B", "B>A"), arena_row("c", None, "A>B")]
    file = write(tmp_path, rows, "mine.jsonl")
    assert [row.score for row in load_judgments(file).rows] == [1.0, 0.25, None]
    record = answer_of(capsys, "aggregate", str(file))
    assert record["published"]["score"] == pytest.approx(100 * (3 + 1 + 0.5 + 0) / 6)
    assert record["published"]["n_rows"] == 6
    assert record["by_prompt"]["win_rate"] == pytest.approx(62.5)
    assert record["bounds_if_failed_all_loss_all_win"] == pytest.approx([100 * s / 3 for s in (1.75, 2.25)])
    with pytest.raises(UserError, match="a row does not look like the first one"):
        load_judgments(write(tmp_path, [*rows, arena_row("d", "A>C", "A>B")]))


def test_alpaca_eval_with_texts(tmp_path, capsys):
    """The order that was shown is found from the log-probabilities that were kept."""

    def row(i: int, first: float, second: float, switched: bool) -> dict[str, Any]:
        top = [{"token": "m", "logprob": first}, {"token": "M", "logprob": second}]
        return {
            "instruction": f"Do {i}.", "output_1": "long " * 9, "output_2": "# Title\n- **x**", "generator_1": "base",
            "generator_2": "mine", "annotator": "weighted", "dataset": "koala",
            "preference": weighted_preference(first, second, switched),
            "raw_completion": {"logprobs": {"content": [{"top_logprobs": top}]}},
        }  # fmt: skip

    rows = [row(1, -0.1, -2.4, True), row(2, -0.1, -2.4, False), row(3, -3.0, -0.05, True)]
    judgments = load_judgments(write(tmp_path, rows, "annotations.json"))
    assert [game.candidate_first for item in judgments.rows for game in item.games] == [True, False, True]
    first = judgments.rows[0]
    assert (first.candidate, first.baseline, first.judge) == ("mine", "base", "weighted")
    assert first.lengths == (45, 15)
    assert first.instruction_id == instruction_id("Do 1.")
    record = answer_of(capsys, "aggregate", str(write(tmp_path, rows * 4)))
    assert record["by_prompt"]["prompts"] == 3


def test_preference_of_missing_labels():
    assert weighted_preference(None, None, False) is None
    assert weighted_preference(-0.1, None, False) == weighted_preference(None, -0.1, True) == 1.0
    assert weighted_preference(None, -0.1, False) == weighted_preference(-0.1, None, True) == 2.0
    assert weighted_preference(-900.0, -0.0, False) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        ('{"a": 1}\n{"a"', "line 2"),
        ("[1]", "row 1: expected an object"),
        ('{"question": 1}', "no judgments that are known here"),
        (
            '{"preference": 1, "len_output_1": 1, "len_output_2": 1, "instruction_id": "x"}\n{"preference": 2}',
            "KeyError",
        ),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, message):
    file = tmp_path / "x.jsonl"
    file.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_judgments(file)
    assert "\n" not in str(caught.value)


def test_our_own_with_repetitions(tmp_path, capsys):
    """Each order counts once, however often it was asked."""

    def row(i: int, first: list[float], second: list[float]) -> dict[str, Any]:
        games = [
            {"candidate_first": side, "score": score}
            for side, scores in ((True, first), (False, second))
            for score in scores
        ]
        scores = first + second
        return {
            "prompt_id": f"p{i}", "sample": 0, "dataset": "", "instruction": f"Q{i}", "output_1": "b" * i,
            "output_2": "c", "score": sum(scores) / len(scores), "status": "ok", "games": games, "generator_1": "base",
            "generator_2": "mine", "judge": "j", "endpoint": None, "judge_prompt": None,
        }  # fmt: skip

    rows = [row(1, [1, 1, 0], [1, 1, 1]), row(2, [0, 0, 0], [1, 1, 1])]
    found = answer_of(capsys, "aggregate", str(write(tmp_path, rows)))
    assert found["kind"] == "ours"
    assert found["position"]["pairs_in_both_orders"] == 2
    assert found["position"]["gap_second_minus_first"] == pytest.approx(100 * (1 / 3 + 1) / 2)
    assert found["position"]["flip_rate"] == 50.0
    assert found["published"]["as_mt_bench"]["tie"] == 2
