"""compare.py paired: the published differences, and what it refuses to compare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from prospect.errors import UserError
from prospect.judge import commands
from prospect.judge.paired import check_alike
from prospect.stats import bootstrap
from prospect.stats import paired as stats
from tests.planted import plant


def paired(capsys, a: Path | str, b: Path | str) -> dict[str, Any]:
    assert commands.run(["paired", str(a), str(b), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_published_differences(vectors, capsys, monkeypatch):
    monkeypatch.setattr(stats, "_DRAWS", 500)
    monkeypatch.setattr(bootstrap.bootstrap, "__defaults__", (200,))
    pairs = json.loads((vectors / "expected.json").read_text())["paired"]
    for want in pairs[:3] + pairs[-2:]:
        files = [vectors / "annotations" / f"{want[side]}.jsonl" for side in "ab"]
        found = paired(capsys, *files)
        for name in ("n_common", "diff", "se_paired", "se_unpaired", "z"):
            assert found[name] == pytest.approx(want[name], abs=1e-6), name
        assert found["p_two_sided"] == pytest.approx(want["p_two_sided"], rel=1e-6)


def rows(folder: Path, name: str, scores: Sequence[float | None], **other: Any) -> Path:
    file = folder / f"{name}.jsonl"
    lines = [
        {"instruction": f"Q{i}", "output_1": "base", "output_2": name, "generator_1": "base", "generator_2": name}
        | {"annotator": "judge", "preference": None if score is None else 1 + score}
        | other
        for i, score in enumerate(scores)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_common_prompts_only(tmp_path, capsys):
    a, b = rows(tmp_path, "a", [1, 1, None, 0.5]), rows(tmp_path, "b", [0, 1, 1])
    found = paired(capsys, a, b)
    assert (found["n_common"], found["diff"], found["ci95_method"]) == (2, 50.0, "exact")
    assert "2 prompts" in found["warnings"][0]


def refuses(folder: Path, message: str, **other: Any) -> None:
    with pytest.raises(UserError, match=message):
        commands.run(["paired", str(rows(folder, "a", [1, 0])), str(rows(folder, "b", [0, 1], **other))])


def test_what_was_not_judged_alike_is_refused(tmp_path):
    refuses(tmp_path, "different judges", annotator="other")
    refuses(tmp_path, "different answers of the baseline on 2 of 2 rows", output_1="other")
    refuses(tmp_path, "no prompt with a verdict is common", instruction="else")


def test_planted_bug_any_judge_goes_is_noticed(tmp_path, monkeypatch):
    plant(monkeypatch, check_alike, "if one != other:", "if False:")
    with pytest.raises(BaseException, match="DID NOT RAISE"):
        refuses(tmp_path, "different judges", annotator="other")


def test_one_of_several_candidates(tmp_path, capsys):
    file = tmp_path / "both.jsonl"
    file.write_text(rows(tmp_path, "a", [1, 0, 1]).read_text() + rows(tmp_path, "b", [0, 0, 1]).read_text())
    assert paired(capsys, f"{file}:a", f"{file}:b")["diff"] == pytest.approx(100 / 3)
    with pytest.raises(UserError, match="several candidates"):
        commands.run(["paired", str(file), str(file)])
    with pytest.raises(UserError, match="no candidate `c`"):
        commands.run(["paired", f"{file}:c", str(file)])
