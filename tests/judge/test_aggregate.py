"""Real judgments give the published figures, in any order of rows, and each side's view mirrors the other's."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from prospect.errors import UserError
from prospect.judge import aggregate, commands, lengths
from prospect.judge.judged import Judged, Shown
from prospect.judge.lengths import load_instruments
from prospect.judge.options import Control
from prospect.judge.position import position
from prospect.judge.readers import load_judgments, weighted_preference
from prospect.stats import bootstrap, length
from tests.planted import plant

MODELS = ("claude-2", "FuseChat-Llama-3.1-8B-Instruct", "alpaca-7b", "phi-2", "gpt4_gamed", "vicuna-7b")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(length, "_DRAWS", 100)
    monkeypatch.setattr(bootstrap.bootstrap, "__defaults__", (200,))


def expected(vectors: Path) -> dict[str, dict[str, Any]]:
    content = json.loads((vectors / "expected.json").read_text())
    return {model["model"]: model for model in content["models"] + content["alpaca_eval_1"]}


def rows_of(vectors: Path, model: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (vectors / "annotations" / f"{model}.jsonl").read_text().splitlines()]


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "model.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def record_of(file: Path, vectors: Path | None) -> dict[str, Any]:
    control = Control.off if vectors is None else Control.alpaca
    instruments = None if vectors is None else load_instruments(vectors)
    return aggregate.figures(load_judgments(file), control, instruments, seed=0)


@pytest.mark.parametrize("model", [*MODELS, "AE1_ghost-7b-alpha"])
def test_published_figures(vectors, model, tmp_path):
    """Whatever the order of the rows."""
    rows = rows_of(vectors, model)
    random.Random(1).shuffle(rows)
    found = record_of(write(tmp_path, rows), vectors)
    want = expected(vectors)[model.removeprefix("AE1_")]
    for name, value in want["computed"].items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    assert found["sign_test_p"] == pytest.approx(want["computed"]["sign_test_p"], rel=1e-6)
    for name, value in want.get("position", {}).items():
        assert found["position"][name] == pytest.approx(value, abs=1e-6), name
    if "bounds_if_failed_all_loss_all_win" in want:
        bounds = want["bounds_if_failed_all_loss_all_win"]
        assert found["bounds_if_failed_all_loss_all_win"] == pytest.approx(bounds, abs=1e-6)
        assert found["n_failed"] == want["n_failed"]
    if "lc" in want:
        assert found["lc"] == pytest.approx(want["lc"]["mle_gamed_prior_joined_by_instruction"], abs=1e-3)
        low, high = found["length_control"]["ci95"]
        assert low < found["lc"] < high
        if found["n_total"] == 805:
            assert found["lc"] == pytest.approx(want["lc"]["leaderboard"], abs=0.15)


def test_preference_of_log_probabilities(vectors):
    checked = 0
    for model in MODELS:
        for row in rows_of(vectors, model):
            if row.get("switched") is not None and (row["lp_m"], row["lp_M"]) != (None, None):
                found = weighted_preference(row["lp_m"], row["lp_M"], row["switched"])
                assert found == pytest.approx(row["preference"], abs=1e-6)
                checked += 1
    assert checked > 4000


def test_l1_at_its_constant(vectors):
    want = expected(vectors)["claude-2"]["lc"]
    rows = load_judgments(vectors / "annotations" / "claude-2.jsonl").rows
    found = lengths.controlled(rows, load_instruments(vectors), 0, want["C_inferred"])
    assert found["rate"] == pytest.approx(want["alpaca_l1_at_C"], abs=0.015)
    assert found["coefficients"] == pytest.approx(want["alpaca_l1_at_C_coef"], abs=0.001)


def test_l1_at_another_constant(vectors):
    """Where a general minimiser stops early at 28.006 and says success."""
    rows = load_judgments(vectors / "annotations" / "claude-2.jsonl").rows
    found = lengths.controlled(rows, load_instruments(vectors), 0, 14.678)
    assert found["rate"] == pytest.approx(28.118, abs=5e-4)
    assert found["ci95"][0] < 26 < 30 < found["ci95"][1]


def test_an_order_that_decides_everything_is_not_certain():
    shown = [Judged(str(i), float(i % 2), games=(Shown(i % 2 == 0, float(i % 2)),)) for i in range(12)]
    found = position(shown, 0)
    assert found is not None
    assert found["gap_second_minus_first"] == 100
    assert found["ci95"] == [pytest.approx(-4, abs=5), 100]


def test_planted_bug_joining_by_row_is_noticed(vectors, tmp_path, monkeypatch):
    """As AlpacaEval does: harmless on a whole file in its order, wrong where rows are missing or shuffled."""
    by_instruction = "[instruments.difficulty[row.instruction_id] for row in rows]"
    plant(monkeypatch, lengths._controlled, by_instruction, "list(instruments.difficulty.values())[: len(rows)]")
    file = vectors / "annotations" / "phi-2.jsonl"
    want = expected(vectors)["phi-2"]["lc"]
    assert record_of(file, vectors)["lc"] == pytest.approx(want["mle_gamed_prior"], abs=1e-3)
    with pytest.raises(AssertionError):
        test_published_figures(vectors, "phi-2", tmp_path)


def mirrored(row: dict[str, Any]) -> dict[str, Any]:
    turned = {True: False, False: True, None: None}[row["switched"]]
    lengths_ = {"len_output_1": row["len_output_2"], "len_output_2": row["len_output_1"]}
    return row | lengths_ | {"preference": 3 - row["preference"], "switched": turned}


def check_mirror(folder: Path, rows: list[dict[str, Any]]) -> None:
    found = aggregate.figures(load_judgments(write(folder, rows)), Control.auto, None, 0)
    other = aggregate.figures(load_judgments(write(folder, [mirrored(row) for row in rows])), Control.auto, None, 0)
    for name in ("win_rate", "discrete_win_rate", "lc"):
        assert other[name] == pytest.approx(100 - found[name], abs=1e-6), name
    assert other["position"]["gap_second_minus_first"] == pytest.approx(found["position"]["gap_second_minus_first"])
    assert (other["n_wins"], other["n_draws"]) == (found["n_wins_base"], found["n_draws"])


def made_up(n: int = 120) -> list[dict[str, Any]]:
    rng = random.Random(0)
    return [
        {
            "instruction_id": f"{i:012x}",
            "preference": rng.choice([1.0, 1.25, 1.5, 2.0]),
            "len_output_1": rng.randint(100, 900),
            "len_output_2": rng.randint(50, 700),
            "switched": rng.random() < 0.5,
        }
        for i in range(n)
    ]


def test_the_other_side_sees_one_minus_it(tmp_path):
    check_mirror(tmp_path, made_up())


def test_planted_bug_one_sided_lengths_are_noticed(tmp_path, monkeypatch):
    plant(monkeypatch, length._design, "np.tanh(data.gaps /", "np.tanh(np.abs(data.gaps) /")
    with pytest.raises(AssertionError):
        check_mirror(tmp_path, made_up())


def test_the_baseline_against_itself(tmp_path):
    rows = [row | {"preference": 0, "len_output_2": row["len_output_1"]} for row in made_up(805)]
    found = aggregate.figures(load_judgments(write(tmp_path, rows)), Control.auto, None, 0)
    assert (found["win_rate"], found["standard_error"], found["n_draws"]) == (50.0, 0.0, 805)
    assert found["decisive_rate"] is found["wilson95"] is None
    assert found["lc"] == 50.0
    assert found["sign_test_p"] == 1.0
    assert found["by_prompt"]["ci95_method"] == "exact"


def test_the_order_of_rows_changes_nothing(tmp_path):
    rows = made_up(90)
    found = aggregate.figures(load_judgments(write(tmp_path, rows)), Control.auto, None, 0)
    other = aggregate.figures(load_judgments(write(tmp_path, rows[::-1])), Control.auto, None, 0)
    for name in ("win_rate", "standard_error", "by_prompt", "length_control", "categories", "sign_test_p"):
        assert found[name] == other[name], name


def test_null_and_nonsense_leave_the_denominator(tmp_path):
    rows = made_up(40)
    rows[0]["preference"], rows[1]["preference"], rows[2]["preference"] = None, math.nan, 7
    judgments = load_judgments(write(tmp_path, rows))
    found = aggregate.figures(judgments, Control.off, None, 0)
    assert (found["n_total"], found["n_failed"]) == (37, 3)
    assert "2 preferences" in judgments.notes[0]
    assert found["bounds_if_failed_all_loss_all_win"][0] < found["win_rate"]


def test_several_samples_of_a_prompt(tmp_path):
    rows = [row | {"instruction_id": f"{i % 30:012x}"} for i, row in enumerate(made_up(90))]
    found = aggregate.figures(load_judgments(write(tmp_path, rows)), Control.off, None, 0)
    assert found["by_prompt"]["prompts"] == 30
    assert found["best_of_n"]["n"] == [3, 3]
    assert found["best_of_n"]["win_rate"] > found["by_prompt"]["win_rate"]


def test_categories(tmp_path):
    rows = [row | {"dataset": "ab"[i % 2], "preference": 1 + i % 2} for i, row in enumerate(made_up(80))]
    found = aggregate.figures(load_judgments(write(tmp_path, rows)), Control.off, None, 0)
    assert {name: part["win_rate"] for name, part in found["categories"].items()} == {"a": 0.0, "b": 100.0}


def test_one_json_object_and_one_line_errors(tmp_path, capsys):
    file = write(tmp_path, made_up(10))
    assert commands.run(["aggregate", str(file), "--json", "--lc", "off"]) == 0
    assert json.loads(capsys.readouterr().out)["n_total"] == 10
    for arguments, message in (
        ((str(tmp_path / "none"),), "none: No such file"),
        ((str(file), "--lc", "alpaca"), "--lc alpaca needs --lc-data"),
        ((str(file), "--lc-data", str(tmp_path)), "lc_instruction_difficulty.json: No such file"),
        ((str(file), "--lc-c", "1"), "--lc-c is the constant"),
    ):
        with pytest.raises(UserError, match=message):
            commands.run(["aggregate", *arguments])
    with pytest.raises(UserError, match="did you mean `aggregate`"):
        commands.run(["agregate"])
    with pytest.raises(SystemExit):
        commands.run(["aggregate", str(file), "--lc_data", "x"])
    assert "did you mean `--lc-data`" in capsys.readouterr().err


def test_runs_of_halos(vectors, capsys):
    assert commands.run(["aggregate", str(vectors / "halos_results.jsonl"), "--json"]) == 0
    found = {run["exp_name"]: run for run in json.loads(capsys.readouterr().out)["runs"]}
    for want in json.loads((vectors / "expected_human_and_runs.json").read_text())["halos"]:
        for name, value in want.items():
            near = value if isinstance(value, str) else pytest.approx(value, rel=1e-6)
            assert found[want["exp_name"]][name] == near, name
