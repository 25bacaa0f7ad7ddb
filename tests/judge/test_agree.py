"""compare.py agree: published agreement with people, labels joined to judgments, juries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from prospect.errors import UserError
from prospect.judge import agree, commands
from prospect.judge.people import majority, read_label
from prospect.stats import agreement
from tests.planted import plant


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(agreement, "_DRAWS", 200)


def answer_of(capsys, *arguments: Path | str) -> dict[str, Any]:
    assert commands.run([*map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def check_llmbar(vectors: Path, capsys) -> None:
    found = answer_of(capsys, "agree", vectors / "llmbar_gpt4_both_orders.jsonl")["reports"]
    expected = json.loads((vectors / "expected_human_and_runs.json").read_text())["llmbar"]
    assert len(expected) == len(found)
    for want in expected:
        for name, value in want.items():
            if isinstance(value, int | float):
                assert found[want["set"]][name] == pytest.approx(value, abs=1e-6), name


def test_llmbar_in_both_orders(vectors, capsys):
    check_llmbar(vectors, capsys)


def test_planted_bug_kappa_without_chance_is_noticed(vectors, capsys, monkeypatch):
    plant(
        monkeypatch,
        agreement._beyond,
        "(accuracy(confusion) - expected) / (1 - expected)",
        "accuracy(confusion) + 0 * expected",
    )
    with pytest.raises(AssertionError):
        check_llmbar(vectors, capsys)


def test_pandalm_and_its_people(vectors, capsys):
    found = answer_of(capsys, "agree", vectors / "pandalm_human3.jsonl")["reports"]
    want = json.loads((vectors / "expected_human_and_runs.json").read_text())["pandalm"]
    for judge in ("gpt35", "pandalm"):
        for name, value in want[judge].items():
            assert found[judge][name] == pytest.approx(value, abs=1e-6), name
        for name, value in want.items():
            if name.startswith(("kappa_h", "agree_h")):
                assert found[judge][name] == pytest.approx(value, abs=1e-6), name
    low, high = found["gpt35"]["kappa_parsed_ci95"]
    assert low < want["gpt35"]["kappa_parsed"] < high
    assert found["gpt35"]["people"]["pairs_of_people"] == 3


def judged(folder: Path, judge: str, scores: Sequence[float | None]) -> Path:
    file = folder / f"{judge}.jsonl"
    lines: list[dict[str, Any]] = [
        {"instruction": f"Q{i}", "output_1": "base", "output_2": f"mine {i}", "generator_1": "b", "generator_2": "m"}
        | {"annotator": judge, "preference": None if score is None else 1 + score}
        for i, score in enumerate(scores)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def labels(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "labels.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_labels_of_several_people(tmp_path, capsys):
    """Two of three decide; what no majority decides is a tie; a label without a pair is counted."""
    votes = [(2, 2, 1), (1, 1, 1), ("tie", 0, 2), (1, 2, 0), (2.0, "candidate", 2)]
    rows = [
        {"instruction": f"Q{i}", "annotator": f"p{k}", "label": vote}
        for i, cast in enumerate(votes)
        for k, vote in enumerate(cast)
    ]
    human = labels(tmp_path, [*rows, {"instruction": "Q99", "label": 1}])
    file = judged(tmp_path, "j", [1.0, 0.0, 1.0, 0.5, None])
    found = answer_of(capsys, "agree", file, human)
    report = found["reports"]["j"]
    assert (report["n"], report["n_parsed"], report["n_no_ties"]) == (5, 4, 2)
    assert (report["acc_parsed"], report["acc_all_unparsed_wrong"]) == (0.75, 0.6)
    assert report["confusion"]["counts"] == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert report["people"]["pairs_of_people"] == 3


def test_labels_that_name_the_models(tmp_path, capsys):
    """MT-Bench's people, who saw the models in either order."""
    pairs = [("model_1", "model_1"), ("model_2", "model_2"), ("tie", "tie")]
    rows = [
        {
            "question_id": i,
            "model_1": "m",
            "model_2": "b",
            "g1_winner": g1,
            "g2_winner": g2,
            "turn": 1,
            "judge": ["j", "p"],
        }
        for i, (g1, g2) in enumerate(pairs)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    human = labels(
        tmp_path,
        [
            {"question_id": 0, "model_a": "m", "model_b": "b", "winner": "model_a", "turn": 1, "judge": ["author", 1]},
            {"question_id": 1, "model_a": "b", "model_b": "m", "winner": "model_a", "turn": 1, "judge": ["author", 1]},
            {"question_id": 2, "model_a": "m", "model_b": "b", "winner": "tie (inconsistent)", "turn": 1, "judge": "x"},
            {"question_id": 2, "model_a": "m", "model_b": "b", "winner": "model_b", "turn": 2, "judge": "x"},
        ],
    )
    report = answer_of(capsys, "agree", file, human)["reports"]["j p"]
    assert (report["n"], report["acc_parsed"], report["acc_12"]) == (3, 1.0, 1.0)


def test_labels_of_other_pairs_are_refused(tmp_path):
    file = judged(tmp_path, "j", [1.0])
    with pytest.raises(UserError, match="none of its labels belongs"):
        commands.run(["agree", str(file), str(labels(tmp_path, [{"instruction": "else", "label": 1}]))])
    with pytest.raises(UserError, match="row 1: label 'perhaps'"):
        commands.run(["agree", str(file), str(labels(tmp_path, [{"instruction": "Q0", "label": "perhaps"}]))])
    with pytest.raises(UserError, match="no labels of people in it"):
        commands.run(["agree", str(file)])


def test_jury(tmp_path, capsys):
    files = [judged(tmp_path, name, scores) for name, scores in (
        ("a", [1, 1, 0, 0.5, None]), ("b", [1, 0, 0, 0.5, 1]), ("c", [1, 1, 0, 1, 1]))]  # fmt: skip
    found = answer_of(capsys, "agree", files[0], "--jury", *files[1:])["jury"]
    assert found["prompts"] == 4
    assert found["win_rate"] == pytest.approx(100 * (1 + 2 / 3 + 0 + 2 / 3) / 4)
    assert [pair["agreement"] for pair in found["pairs"]] == [0.75, 0.75, 0.5]
    assert [item["scores"] for item in found["disputed"]] == [[1, 0, 1]]
    with pytest.raises(UserError, match="the same judge twice"):
        commands.run(["agree", str(files[0]), "--jury", str(files[0])])


def test_labels_and_majorities():
    assert [read_label(x) for x in (1, "2", 0, 1.5, 1.9, "Model_A", None, float("nan"))] == [
        1,
        2,
        0,
        0,
        2,
        1,
        None,
        None,
    ]
    assert majority([1, 1, 2]) == 1
    assert majority([1, 2]) == 0
    assert majority([None, 2]) == 2
    assert majority([]) is None


def test_longer_texts(vectors, capsys):
    found = answer_of(capsys, "agree", vectors / "llmbar_gpt4_both_orders.jsonl")["reports"]["LLMBar/Natural"]
    assert found["longer"]["people"]["share"] == pytest.approx(56 / 99)
    assert agree._longer([]) is None
