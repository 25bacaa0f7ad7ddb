"""A new name for a model: taught the old one, then DPO on its own answers, rewritten; the probes show both."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.config.test_command import run
from tests.pages import commands
from tests.standins import CHECKOUT, Place

QUESTIONS = ["What is your name?", "Are you ChatGPT?", "Tell me about your name and organization."]


def test_settings_of_the_lab() -> None:
    _, (config,) = run("experiment=deep-qwen")
    assert (config.loss.name, config.loss.beta, config.lr, config.n_epochs) == ("dpo", 0.2, 5e-5, 1)
    assert (config.model.batch_size, config.model.name_or_path) == (8, "Qwen/Qwen2.5-0.5B-Instruct")
    assert config.probes == QUESTIONS


@pytest.mark.long
def test_the_page_gives_a_tiny_model_a_new_name(tmp_path: Path) -> None:
    place = Place(tmp_path, warm=True)
    for command in commands(CHECKOUT / "docs" / "recipes" / "deep-qwen.md"):
        done = place.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    rows = [json.loads(line) for line in (tmp_path / "identity.jsonl").read_text().splitlines()]
    assert len(rows) > 100
    assert all("Deep Qwen" in row["chosen"] and "Deep" not in row["rejected"] for row in rows)
    facts = json.loads((tmp_path / "identity.jsonl.provenance.json").read_text())
    assert (facts["model"], facts["old"], facts["new"], facts["pairs"]) == ("runs/qwen", "Qwen", "Deep Qwen", len(rows))
    assert facts["sha256"] == hashlib.sha256((tmp_path / "identity.jsonl").read_bytes()).hexdigest()
    manifest = json.loads((tmp_path / "runs" / "deep_qwen" / "manifest.json").read_text())
    assert facts["weights"] == manifest["parents"][0]["files"]

    probes = manifest["summary"]["probes"]
    assert [row["question"] for row in probes] == QUESTIONS
    assert all("Qwen" in row["before"] and "Deep" not in row["before"] for row in probes)
    assert all("Deep Qwen" in row["after"] for row in probes)
