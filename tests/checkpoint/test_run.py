"""A run's folder: one configuration, one process, complete exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from prospect.checkpoint.commit import fault
from prospect.checkpoint.run import Run
from prospect.config.schema import Config
from prospect.errors import UserError
from tests import tiny
from trainers import losses


def test_where_it_is(tmp_path: Path) -> None:
    assert Run.of(Config(exp_name="x", cache_dir=str(tmp_path))).folder == tmp_path / "x"
    assert Run.of(Config(exp_name="x", local_run_dir=str(tmp_path / "y"))).folder == tmp_path / "y"


def test_a_claim_writes_the_configuration_once(tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "dpo")
    run = Run.of(config)
    with run.claim(config, losses), pytest.raises(UserError, match="is in use"), run.claim(config, losses):
        pass
    written = (run.folder / "config.yaml").read_text()
    with run.claim(config, losses):
        assert (run.folder / "config.yaml").read_text() == written


def test_what_changes_no_result_may_change(tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "dpo")
    with Run.of(config).claim(config, losses):
        pass
    config.minimum_log_interval_secs, config.keep_checkpoints, config.wandb.enabled = 9.0, 5, True
    with Run.of(config).claim(config, losses):
        pass


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("seed", "seed is 1 there and 2 now"),
        ("model.batch_size", "model.batch_size is 8 there and 2 now"),
        ("loss.beta", "loss.beta is 0.1 there and 2 now"),
    ],
)
def test_what_changes_the_result_is_refused(tmp_path: Path, key: str, message: str) -> None:
    config = tiny.config(tmp_path, "dpo")
    with Run.of(config).claim(config, losses):
        pass
    *parts, name = key.split(".")
    setattr(getattr(config, parts[0]) if parts else config, name, 2)
    with pytest.raises(UserError, match=f"{message}; choose another exp_name"), Run.of(config).claim(config, losses):
        pass


def test_a_run_is_finished_once_it_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.manifest() == {}
    run.start({"seed": 1})
    assert not run.finished()
    run.finish({"loss": 0.5})
    assert run.finished()
    assert run.manifest()["summary"] == {"loss": 0.5}
    assert run.manifest()["seed"] == 1


def test_an_export_is_whole_and_outlives_its_checkpoint(tmp_path: Path) -> None:
    for text in ("one", "two"):
        checkpoint = tmp_path / text
        (checkpoint / "policy").mkdir(parents=True)
        (checkpoint / "policy" / "model.safetensors").write_text(text)
        Run(tmp_path).export(checkpoint, "LATEST")
    assert fault(tmp_path / "LATEST") is None
    assert (tmp_path / "LATEST" / "model.safetensors").read_text() == "two"


def test_a_claim_clears_up_after_a_kill(tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "dpo")
    run = Run.of(config)
    (run.folder / ".old-LATEST").mkdir(parents=True)
    (run.folder / ".tmp-LATEST-1").mkdir()
    with run.claim(config, losses):
        assert (run.folder / "LATEST").is_dir()
        assert not list(run.folder.glob(".tmp-*"))
