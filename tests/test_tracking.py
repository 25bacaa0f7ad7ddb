"""Where metrics go, and what a run that continues forgets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prospect.config.schema import Config, TensorboardConfig, WandbConfig
from prospect.tracking import Tracker, last_values


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def track(folder: Path, steps: range, done: int, config: Config | None = None) -> None:
    tracker = Tracker(config or Config(), folder, done, {})
    for step in steps:
        tracker.log({"loss": 1 / step}, step)
        tracker.log({"eval/loss": 2 / step}, step)
    tracker.close()


def test_a_run_that_continues_forgets_later_steps(tmp_path: Path) -> None:
    track(tmp_path, range(1, 8), 0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # torn by a kill
    track(tmp_path, range(5, 7), 4)
    assert [line["step"] for line in lines(tmp_path)] == [s for s in range(1, 7) for _ in "ab"]
    assert last_values(tmp_path / "metrics.jsonl") == {"step": 6, "loss": 1 / 6, "eval/loss": 2 / 6}


def test_a_run_without_a_state_forgets_all(tmp_path: Path) -> None:
    track(tmp_path, range(1, 3), -1)
    Tracker(Config(), tmp_path, -1, {}).close()
    assert lines(tmp_path) == []


def test_tensorboard_shows_the_steps_that_count(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    config = Config(tensorboard=TensorboardConfig(enabled=True))
    track(tmp_path, range(1, 6), -1, config)
    track(tmp_path, range(4, 8), 3, config)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(s, pytest.approx(1 / s)) for s in range(1, 8)]


def test_wandb_offline_writes_beside_the_run_and_continues_its_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    config = Config(exp_name="x", wandb=WandbConfig(enabled=True))
    tracker = Tracker(config, tmp_path, -1, {})
    tracker.log({"loss": 1.0}, 1)
    tracker.close()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    again = Tracker(config, tmp_path, 1, tracker.ids)
    assert again.ids == tracker.ids
    again.close()


def test_debug_tells_nobody_outside(tmp_path: Path) -> None:
    config = Config(debug=True, wandb=WandbConfig(enabled=True), tensorboard=TensorboardConfig(enabled=True))
    tracker = Tracker(config, tmp_path, -1, {})
    assert len(tracker.sinks) == 1
    assert tracker.ids == {}
