"""compare.py rank: published strengths, HALOs' results, and what may share a table."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from prospect.errors import UserError
from prospect.judge import commands, rank
from prospect.stats import bradley_terry, length
from tests.judge.test_run import run as compared
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
    plant(monkeypatch, rank._met, "if row.score is not None:", "if row.score is not None and row.score != 0.5:")
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
    plant(monkeypatch, rank.one_judge, "if wanted is None and len(judges) > 1:", "if False:")
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


def annotated(folder: Path, name: str, preferences: list[float], start: int = 0) -> Path:
    rows = [
        {"instruction": f"q{start + i}", "generator_1": "base", "generator_2": name, "annotator": "j", "preference": p}
        for i, p in enumerate(preferences)
    ]
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_p_is_that_of_paired(tmp_path, capsys):
    """Three on the same prompts, at 99, 85 and 70%: far apart prompt by prompt."""
    files = [annotated(tmp_path, f"run{k}", [2.0] * k + [1.0] * (200 - k)) for k in (198, 170, 140)]
    table = answer_of(capsys, *files, "--lc", "off")["table"]
    assert [line["name"] for line in table] == ["run198", "run170", "run140", "base"]
    assert [line["rank95"] for line in table] == [[1, 1], [2, 2], [3, 3], [4, 4]]
    tests = []
    for other in files[1:]:
        assert commands.run(["paired", str(files[0]), str(other), "--json"]) == 0
        tests.append(json.loads(capsys.readouterr().out)["permutation_p"])
    assert tests == pytest.approx([2 * 0.5**28, 2 * 0.5**58])
    base = 2 * sum(math.comb(200, k) for k in range(3)) / 2**200
    assert [line["p_gap_to_first_holm"] for line in table[1:]] == pytest.approx([tests[0], 2 * tests[1], 3 * base])


def test_few_games(tmp_path, capsys):
    (first, base) = answer_of(capsys, annotated(tmp_path, "run", [2.0] * 5))["table"]
    assert base["p_gap_to_first_holm"] == 2 / 32
    assert first["rank95"] == [1, 2]
    assert first["elo_ci95"][1] is None
    assert commands.run(["rank", str(tmp_path / "run.jsonl")]) == 0
    assert " to –" in capsys.readouterr().out


def test_other_prompts_say_nothing(tmp_path, capsys):
    one, other = annotated(tmp_path, "one", [2.0] * 40), annotated(tmp_path, "two", [1.0, 2.0] * 20, start=40)
    table = answer_of(capsys, one, other)["table"]
    assert [(line["name"], line["p_gap_to_first_holm"]) for line in table[1:2]] == [("two", None)]
    assert table[1]["rank95"][0] == 1


def test_shared_prompts_that_say_the_opposite_are_said(tmp_path, capsys):
    """One is ahead by prompts that the other has not, and behind on those that both have."""
    one = annotated(tmp_path, "one", [1.0] * 20 + [2.0] * 180)
    other = annotated(tmp_path, "two", [2.0] * 15 + [1.0] * 5)
    record = answer_of(capsys, one, other)
    assert [line["name"] for line in record["table"][:2]] == ["one", "two"]
    assert record["table"][1]["p_gap_to_first_holm"] is None
    assert "two is behind one by all its prompts, but ahead on those that both have" in record["warnings"][-1]


def check_once(tmp_path: Path, capsys: Any, once: list[Path], twice: list[Path]) -> None:
    single = answer_of(capsys, *once)
    assert answer_of(capsys, *twice) == single
    assert commands.run(["rank", *map(str, twice)]) == 0
    assert "stand in other files, too: counted once" in capsys.readouterr().err.replace("stands", "stand")


def test_the_same_file_twice_counts_once(tmp_path, capsys):
    file = annotated(tmp_path, "run", [2.0] * 30 + [1.0] * 20)
    (tmp_path / "copies").mkdir()
    copy = tmp_path / "copies" / "copy.jsonl"
    copy.write_bytes(file.read_bytes())
    check_once(tmp_path, capsys, [file], [file, file])
    check_once(tmp_path, capsys, [file], [file, copy])
    lines = results(tmp_path, result("a", 60, 40), result("b", 55, 45))
    check_once(tmp_path, capsys, [lines], [lines, lines])


def test_a_result_and_its_judgments_are_one(stub, samples, capsys):
    _, found = compared(stub, samples)
    line, judged = samples.parent / "result.jsonl", Path(found["judgments"])
    capsys.readouterr()
    check_once(samples.parent, capsys, [line], [line, judged])
