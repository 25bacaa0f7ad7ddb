"""One process or two: the same losses, gradients, metrics, draws and runs, on data that do not divide evenly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from prospect.parallel import World, launch
from tests import tiny
from tests.runs import warm_processes
from tests.two_processes import CHANGES, measure, step_facts
from trainers.launch import train_in_process

Facts = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have measured and trained."""
    folder = tmp_path_factory.mktemp("two")
    config = tiny.config(folder, "kto", exp_name="run", **CHANGES)
    config.parallel.processes = 2
    with warm_processes():
        assert launch(measure, config) == 0
    return folder


@pytest.fixture(scope="module")
def two(folder: Path) -> list[Facts]:
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.parametrize("loss", tiny.WAYS)
def test_steps_and_evaluation_are_the_same(two: list[Facts], loss: str, tmp_path: Path) -> None:
    alone = step_facts(tmp_path, loss, World())
    for facts in two:
        for (metrics, gradient), (wanted, wanted_gradient) in zip(facts[loss]["steps"], alone["steps"], strict=True):
            assert metrics == pytest.approx(wanted, abs=1e-6, rel=1e-6)
            assert tiny.distance(gradient, wanted_gradient) <= 1e-5
        assert facts[loss]["evaluation"] == pytest.approx(alone["evaluation"], abs=1e-6, rel=1e-6)
        assert facts[loss]["drawn"] == alone["drawn"]


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_planted_mean_over_each_process_is_seen(two: list[Facts], loss: str) -> None:
    (_, right) = two[0][loss]["steps"][1]
    assert tiny.distance(two[0][loss]["planted"], right) > 0.1


def test_a_whole_run_is_the_same(folder: Path, tmp_path: Path) -> None:
    assert train_in_process(tiny.config(tmp_path, "kto", exp_name="run", **CHANGES), World()) == 0
    ours, theirs = (
        [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
        for place in (folder, tmp_path)
    )
    assert len(ours) == len(theirs)
    for line, wanted in zip(ours, theirs, strict=True):
        line.pop("tokens_per_second", None), wanted.pop("tokens_per_second", None)
        if line["step"] == 1:  # before the first update all rewards are 0 but for rounding, which ranks them
            line.pop("rewards/auc", None), wanted.pop("rewards/auc", None)
        assert line == pytest.approx(wanted, abs=1e-5, rel=1e-5)
    assert (folder / "run" / "log" / "rank-1.log").is_file()
