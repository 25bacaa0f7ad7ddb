"""What processes tell each other, and that a single one does not need to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from prospect.config.schema import Config, ParallelConfig
from prospect.parallel import World, launch, world
from tests.parallel.workers import tell
from tests.runs import warm_processes


def test_two_processes(tmp_path: Path) -> None:
    with warm_processes():
        assert launch(tell, Config(cache_dir=str(tmp_path), parallel=ParallelConfig(processes=2))) == 4
    for rank in (0, 1):
        facts = json.loads((tmp_path / f"{rank}.json").read_text())
        assert facts == {
            "sum": [3.0, 1.0],
            "gather": ["rank 0", "rank 1"],
            "from_main": 0,
            "gradients": [[1.0, 1.0, 1.0], [3.0, 3.0], [0.0]],  # who has no gradient adds zeros
        }


def test_alone(tmp_path: Path) -> None:
    single = World()
    assert single.sum(1.5, 2.0) == [1.5, 2.0]
    assert single.gather("x") == ["x"]
    assert single.from_main("x") == "x"
    single.barrier()


def test_gradients_travel_in_buckets_of_one_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "_BUCKET", 40)
    sizes = [(4, torch.float32), (5, torch.float32), (2, torch.float32), (2, torch.float64), (90, torch.float64)]
    parameters = [torch.zeros(n, dtype=dtype) for n, dtype in sizes]
    assert [[len(p) for p in bucket] for bucket in world._buckets(parameters)] == [[4, 5], [2], [2], [90]]
