"""compare.py rank: published strengths, HALOs' results, and what may share a table."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from prospect.errors import UserError
from prospect.judge import commands, rank
from prospect.judge.field import one_judge
from prospect.stats import bradley_terry, length
from tests.planted import plant


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(bradley_terry, "_DRAWS", 200)
    monkeypatch.setattr(length, "_DRAWS", 100)


def answer_of(capsys, *arguments: Path | str) -> dict[str, Any]:
    assert commands.run(["rank", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def check_pandalm(vectors: Path, capsys) -> None:
    found = answer_of(capsys, vectors / "pandalm_human3.jsonl")
    want = json.loads((vectors / "expected_human_and_runs.json").read_text())["pandalm"]["bradley_terry_majority"]
    by_name = {line["name"]: line for line in found["table"]}
    assert found["models"] == want["models"]
    for row, expected in zip(found["wins_matrix"], want["wins_matrix"], strict=True):
        assert row == pytest.approx(expected)
    for name, theta, error, elo in zip(want["models"], want["theta_mean0"], want["se"], want["elo_1000"], strict=True):
        line = by_name[name]
        assert line["strength"] == pytest.approx(theta, abs=1e-6)
        assert line["se"] == pytest.approx(error, abs=1e-6)
        assert line["elo"] == pytest.approx(elo, abs=1e-3)
        assert line["elo_ci95"][0] < line["elo"] < line["elo_ci95"][1]
        assert line["rank95"][0] <= line["rank"] <= line["rank95"][1]


def test_strengths_of_pandalms_models(vectors, capsys):
    check_pandalm(vectors, capsys)


def test_planted_bug_ties_dropped_is_noticed(vectors, capsys, monkeypatch):
    old = "elif row.score is not None:"
    plant(monkeypatch, rank._cells, old, "elif row.score is not None and row.score != 0.5:")
    with pytest.raises(AssertionError):
        check_pandalm(vectors, capsys)


def test_halos_results(vectors, capsys):
    """Against one baseline a strength is the logit of the win rate."""
    found = answer_of(capsys, vectors / "halos_results.jsonl")
    assert found["shared_baseline"] == found["anchor"] == "chosen"
    at = {line["name"]: line for line in found["table"]}
    assert at["chosen"]["elo"] == 1000
    for run in json.loads((vectors / "expected_human_and_runs.json").read_text())["halos"]:
        line = at[run["exp_name"]]
        assert line["strength"] - at["chosen"]["strength"] == pytest.approx(run["bt_logit"], abs=1e-5)
    assert [line["rank"] for line in found["table"]] == list(range(1, 13))


def result(name: str, wins: int, losses: int, **other: Any) -> dict[str, Any]:
    line = {"date": f"d{wins}", "total": wins + losses, "seed": 0, "exp_name": name, "judge": "j", "config": {}}
    sides = {"candidate": {"name": "policy", "wins": wins}, "baseline": {"name": "chosen", "wins": losses}}
    return line | sides | other


def results(folder: Path, *lines: dict[str, Any]) -> Path:
    file = folder / "result.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def check_judges(tmp_path: Path, capsys: Any) -> None:
    file = results(tmp_path, result("a", 6, 4), result("b", 3, 7, judge="other"), result("c", 5, 5))
    with pytest.raises(UserError, match=r"several judges \(j, other\)"):
        commands.run(["rank", str(file)])
    assert {line["name"] for line in answer_of(capsys, file, "--judge", "j")["table"]} == {"a", "c", "chosen"}
    prompts = [{"name": "halos", "sha256": letter * 64} for letter in "ab"]
    file = results(tmp_path, result("a", 6, 4, prompt=prompts[0]), result("b", 3, 7, prompt=prompts[1]))
    with pytest.raises(UserError, match="several judge's prompts"):
        commands.run(["rank", str(file)])


def test_judges_never_share_a_table(tmp_path, capsys):
    check_judges(tmp_path, capsys)


def test_planted_bug_judges_mixed_is_noticed(tmp_path, capsys, monkeypatch):
    plant(monkeypatch, one_judge, "if wanted is None and len(judges) > 1:", "if False:")
    with pytest.raises(BaseException, match="DID NOT RAISE"):
        check_judges(tmp_path, capsys)


def test_other_baselines_are_not_connected(tmp_path):
    sides = [{"baseline": {"name": "chosen", "wins": 4, "answers_sha256": letter * 64}} for letter in "ab"]
    file = results(tmp_path, result("a", 6, 4) | sides[0], result("b", 3, 4) | sides[1])
    with pytest.raises(UserError, match="never met"):
        commands.run(["rank", str(file)])


def test_a_baseline_with_other_answers_is_refused(vectors):
    files = [vectors / "annotations" / f"{name}.jsonl" for name in ("claude-2", "AE1_ghost-7b-alpha")]
    with pytest.raises(UserError, match="`baseline` stands for different answers"):
        commands.run(["rank", *map(str, files)])


def test_a_run_that_is_there_twice_and_one_that_lost_everything(tmp_path, capsys):
    found = answer_of(capsys, results(tmp_path, result("a", 6, 4), result("a", 7, 3), result("b", 0, 10)))
    assert {line["name"] for line in found["table"]} == {"a (d6)", "a (d7)", "b", "chosen"}
    assert "b has won or lost everything" in found["warnings"][0]
    assert all(math.isfinite(line["elo"]) for line in found["table"])
    with pytest.raises(UserError, match="did you mean `chosen`"):
        commands.run(["rank", str(tmp_path / "result.jsonl"), "--anchor", "chose"])


def test_judgments_of_several_runs(vectors, capsys):
    names = ("claude-2", "FuseChat-Llama-3.1-8B-Instruct", "alpaca-7b", "phi-2", "vicuna-7b")
    files = [vectors / "annotations" / f"{name}.jsonl" for name in names]
    found = answer_of(capsys, *files)
    assert found["table"][0]["name"] == "FuseChat-Llama-3.1-8B-Instruct"
    published = {"claude-2": 28.16, "FuseChat-Llama-3.1-8B-Instruct": 65.39, "alpaca-7b": 5.88, "phi-2": 3.81}
    for name, rate in published.items():  # the prior of own data: within 3.7 of AlpacaEval's on 56 models
        assert found["length_control"]["runs"][name]["rate"] == pytest.approx(rate, abs=3.7)
    assert answer_of(capsys, *files, "--lc", "off")["length_control"] is None
    swept = answer_of(capsys, *files, "--lc", "sweep")["length_control"]
    assert swept["slope"][0] < 0
