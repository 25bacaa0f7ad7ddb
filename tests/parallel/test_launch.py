"""Starting processes: how many, and how one process's error ends all."""

from __future__ import annotations

import pytest

from prospect.config.schema import Config, ParallelConfig
from prospect.errors import MachineError
from prospect.parallel import World, launch
from tests.parallel.workers import fail


def test_one_process_is_this_one() -> None:
    def worker(config: Config, world: World) -> int:
        assert (world.rank, world.size, world.is_main) == (0, 1, True)
        return 7

    assert launch(worker, Config()) == 7


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(MachineError, match=r"parallel.processes: 3 asked for, 2 GPUs are visible"):
        launch(fail, Config(parallel=ParallelConfig(processes=3)))


def test_an_error_in_one_process_ends_all_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert launch(fail, Config(parallel=ParallelConfig(processes=2))) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if "config has no run_id" not in line]
    assert [line for line in lines if "mistake" in line] == ["error: datasets.pairs: a mistake that one process meets"]
    assert not any("Traceback" in line for line in lines)
