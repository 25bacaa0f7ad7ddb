"""Values from environment variables are used by a run and written down nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import trainers
from prospect.config import (
    Config,
    environment,
    eval_command,
    first_difference,
    load_run_config,
    run_command,
    save_config,
)
from prospect.config.environment import written
from tests.planted import plant

SECRET = "canary-77"
LINE = ("loss=kto", "model=tiny", "datasets=[files]", "exp_name=mine")


def composed(*words: str) -> Config:
    found: list[Config] = []

    def job(config: Config) -> int:
        found.append(config)
        return 0

    assert run_command([*LINE, *words], trainers.losses, job) == 0
    return found[0]


def check_nothing_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("SECRET", SECRET)
    path = "datasets.files.path='https://x.example/${oc.env:SECRET}/rows.jsonl'"
    config = composed(path, "wandb.entity=${oc.env:SECRET}", "samples_dir=${wandb.entity}", f"cache_dir={folder}")
    assert config.wandb.entity == config.samples_dir == SECRET
    assert str(config.datasets["files"].path).endswith(f"{SECRET}/rows.jsonl")
    (folder / "mine").mkdir()
    save_config(config, folder / "mine" / "config.yaml")
    for text in ((folder / "mine" / "config.yaml").read_text(), json.dumps(written(config), default=str)):
        assert SECRET not in text
        assert text.count("${oc.env:SECRET}") == 3
    return config


def test_nothing_is_written(tmp_path, monkeypatch):
    config = check_nothing_is_written(tmp_path, monkeypatch)
    assert first_difference(load_run_config(str(tmp_path / "mine"), [], trainers.losses), config) is None
    monkeypatch.setenv("SECRET", "another")
    assert composed("wandb.entity=${oc.env:SECRET}").wandb.entity == "another", "looked up again"


def test_planted_bug_values_in_place_of_texts_are_seen(tmp_path, monkeypatch):
    plant(monkeypatch, environment.put, "else text", "else found[first]")
    with pytest.raises(AssertionError):
        check_nothing_is_written(tmp_path, monkeypatch)


def test_a_stored_text_is_not_looked_up(tmp_path, monkeypatch, capsys):
    """A stranger's configuration could read any variable by it."""
    check_nothing_is_written(tmp_path, monkeypatch)
    seen: list[Config] = []

    def job(config: Config) -> int:
        seen.append(config)
        return 0

    line = [f"--config-path={tmp_path}/mine", "++mode=eval"]
    assert eval_command(line, trainers.losses, job) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "datasets.files.path came from https://x.example/${oc.env:SECRET}/rows.jsonl, which is not kept" in said
    assert eval_command([*line, "++datasets.files.path=rows.jsonl"], trainers.losses, job) == 0
    assert seen[0].wandb.entity == "${oc.env:SECRET}"


def test_a_name_by_default_has_the_text(monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)
    line = ["loss=kto", "model=tiny", "datasets=[files]", "datasets.files.path=${oc.env:SECRET}"]
    found: list[Config] = []

    def job(config: Config) -> int:
        found.append(config)
        return 0

    assert run_command(line, trainers.losses, job) == 0
    assert SECRET not in str(found[0].exp_name)
