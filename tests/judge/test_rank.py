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


def judgments(folder: Path, name: str, scores: list[float], baseline: str = "base", first: int = 0) -> Path:
    file = folder / f"{name}.jsonl"
    lines = [
        {"instruction": f"Q{i}", "generator_1": baseline, "generator_2": name, "annotator": "j", "preference": 1 + s}
        for i, s in enumerate(scores, first)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def three(folder: Path) -> list[Path]:
    """99, 85 and 70% of the same 200 prompts."""
    return [judgments(folder, f"run {wins}", [1.0] * wins + [0.0] * (200 - wins)) for wins in (198, 170, 140)]


def test_the_p_of_a_gap_is_the_one_that_paired_prints(tmp_path, capsys):
    files = three(tmp_path)
    first, second, third, base = answer_of(capsys, *files)["table"]
    assert commands.run(["paired", str(files[0]), str(files[1]), "--json"]) == 0
    want = json.loads(capsys.readouterr().out)
    assert (want["permutation_p"], want["permutation_method"]) == (2.0**-27, "exact")
    assert (second["p_gap_to_first"], second["p_test"], second["p_method"]) == (2.0**-27, "paired", "exact")
    assert third["p_gap_to_first"] == 2.0**-57
    assert second["p_gap_to_first_holm"] == 2.0**-27
    assert third["p_gap_to_first_holm"] == 2 * 2.0**-57
    assert base["p_test"] == "met"
    assert [line["rank95"] for line in (first, second, third, base)] == [[1, 1], [2, 2], [3, 3], [4, 4]]


def test_five_wins_of_five_prove_nothing(tmp_path, capsys):
    first, second = answer_of(capsys, judgments(tmp_path, "a", [1.0] * 5))["table"]
    assert (second["p_gap_to_first_holm"], second["rank95"], first["rank95"]) == (0.0625, [1, 2], [1, 2])
    assert first["elo_ci95"][0] < 1000
    assert first["elo_ci95"][1] is None
    assert commands.run(["rank", str(tmp_path / "a.jsonl")]) == 0
    assert "∞" in capsys.readouterr().out


def test_what_both_share_may_point_the_other_way(tmp_path, capsys):
    """The first has won more of its own prompts; on the ten that both have, the second is better."""
    files = [judgments(tmp_path, "a", [0.0] * 5 + [1.0] * 45), judgments(tmp_path, "b", [1.0] * 8 + [0.0] * 2)]
    found = answer_of(capsys, files[0], files[1])
    line = next(line for line in found["table"] if line["name"] == "b")
    assert (line["p_gap_to_first"], line["p_gap_to_first_holm"]) == (None, None)
    assert line["rank95"][0] == 1
    assert "b: on what it shares with a it is the better one by 30.00 points" in found["warnings"][0]


def test_nothing_shared_is_a_dash(tmp_path, capsys):
    files = [judgments(tmp_path, "a", [1.0] * 9), judgments(tmp_path, "b", [1.0] * 6 + [0.0] * 3, first=9)]
    assert commands.run(["rank", *map(str, files)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if " b " in line)
    assert line.split()[-2:] == ["–", "–"]


def check_once(folder: Path, capsys: Any) -> None:
    once = answer_of(capsys, *three(folder))
    copy = folder / "copy.json"
    copy.write_text(
        json.dumps([json.loads(line) for line in (folder / "run 198.jsonl").read_text().splitlines()][::-1])
    )
    more = judgments(folder / "more", "run 198", [1.0] * 198 + [0.0] * 2)
    twice = answer_of(capsys, *three(folder), copy, more, folder / "run 170.jsonl")
    assert twice["table"] == once["table"]
    assert sum("counted once" in note for note in twice["warnings"]) == 3


def test_what_is_given_twice_counts_once(tmp_path, capsys):
    (tmp_path / "more").mkdir()
    check_once(tmp_path, capsys)
    file = results(tmp_path, result("a", 60, 40), result("b", 55, 45), result("a", 60, 40))
    found = answer_of(capsys, file, file)
    assert [line["name"] for line in found["table"]] == ["a", "b", "chosen"]
    assert len([note for note in found["warnings"] if "counted once" in note]) == 2
    assert [line["p_test"] for line in found["table"]] == [None, "counts", "met, by counts"]


def test_a_result_and_its_judgments_count_once(tmp_path, capsys):
    file = judgments(tmp_path, "a", [1.0] * 7 + [0.0] * 3)
    line = result("a", 7, 3, judgments=str(file), judge="j") | {"baseline": {"name": "base", "wins": 3}}
    found = answer_of(capsys, results(tmp_path, line), file)
    assert {line["games"] for line in found["table"]} == {10}
    assert "the same as the judgments of" in found["warnings"][0]


def test_the_prompt_is_the_unit_of_a_table(tmp_path, capsys):
    """One prompt with nine samples that are all won is one prompt."""
    file = tmp_path / "a.jsonl"
    row = {"generator_1": "base", "generator_2": "a", "annotator": "j"}
    rows = [row | {"instruction": "often", "preference": 2}] * 9 + [
        row | {"instruction": f"Q{i}", "preference": p} for i, p in enumerate((2, 1, 1))
    ]
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    found = {line["name"]: line for line in answer_of(capsys, file)["table"]}
    assert (found["a"]["win_rate"], found["a"]["games"]) == (50.0, 4.0)


def test_nobody_meets_himself(tmp_path):
    with pytest.raises(UserError, match="`a` is the name of both sides"):
        commands.run(["rank", str(judgments(tmp_path, "a", [1.0], baseline="a"))])
