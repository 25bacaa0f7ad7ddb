"""Resume states: the newest whole one is used, the last few and the best are kept."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prospect.checkpoint.state import Checkpoints, Position
from prospect.errors import MachineError
from prospect.logs import log
from tests.planted import plant


def save(checkpoints: Checkpoints, step: int, best: int | None = None) -> Path:
    def model(folder: Path) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(bytes([step]) * 1000)

    optimizer: dict[str, Any] = {"moment": torch.full((3,), float(step))}
    return checkpoints.save(Position(step, step * 8, best_step=best), model, optimizer, {"last_epoch": step})


def steps(checkpoints: Checkpoints) -> list[int]:
    return sorted(int(p.name.split("-")[1]) for p in checkpoints.folder.iterdir())


def found(checkpoints: Checkpoints) -> int | None:
    latest = checkpoints.latest()
    return None if latest is None else latest[1].step


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    position = Position(3, 24, best=0.5, best_step=2, milestone=True, tracker={"wandb": "id"})
    folder = checkpoints.save(position, lambda to: to.mkdir(), {"m": torch.ones(2)}, {"s": 1})
    assert Checkpoints(tmp_path, keep=2).latest() == (folder, position)
    optimizer, schedule = checkpoints.optimizer(folder, torch.device("cpu"))
    assert torch.equal(optimizer["m"], torch.ones(2))
    assert schedule == {"s": 1}


def test_the_last_few_and_the_best_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 7):
        save(checkpoints, step, best=2 if step > 1 else None)
    assert steps(checkpoints) == [2, 5, 6]
    save(checkpoints, 7, best=7)
    assert steps(checkpoints) == [6, 7]
    save(checkpoints, 12)  # by number, not by name
    assert found(checkpoints) == 12


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda x: (x / "policy/model.safetensors").write_bytes(bytes([2]) * 500),
    "emptied": lambda x: (x / "optimizer.pt").write_bytes(b""),
    "longer": lambda x: (x / "optimizer.pt").write_bytes((x / "optimizer.pt").read_bytes() + b"!"),
    "bit flipped": lambda x: flip(x / "policy/model.safetensors"),
    "optimizer bit flipped": lambda x: flip(x / "optimizer.pt"),
    "deleted": lambda x: (x / "position.json").unlink(),
    "swapped with another step's": lambda x: shutil.copy(
        x.parent / "step-1" / "policy/model.safetensors", x / "policy/model.safetensors"
    ),
    "no manifest": lambda x: (x / "MANIFEST.json").unlink(),
    "an empty newer folder": lambda x: (x.parent / "step-9").mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_newest_whole_state_is_used(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 1), save(checkpoints, 2)
    DAMAGE[damage](tmp_path / "step-2")
    log.propagate = True
    with caplog.at_level(logging.WARNING):
        assert found(checkpoints) == (2 if "newer" in damage else 1)
    (line,) = set(caplog.messages)
    assert f"step-{9 if 'newer' in damage else 2} is not used: " in line


def test_planted_trust_in_names_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 1), save(checkpoints, 2)
    DAMAGE["bit flipped"](tmp_path / "step-2")
    plant(monkeypatch, Checkpoints.latest, "wrong is None", "True")
    assert found(checkpoints) == 2


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_state_never_costs_a_whole_one(tmp_path: Path, keep: int) -> None:
    checkpoints = Checkpoints(tmp_path, keep)
    save(checkpoints, 1)
    (tmp_path / "step-9").mkdir()
    assert found(checkpoints) == 1
    save(checkpoints, 2)
    assert found(checkpoints) == 2
    assert steps(checkpoints) == [1, 2][-keep:]


def test_a_failed_save_keeps_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 1)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(MachineError, match=r"step-2: could not be written .No space left on device"):
            save(checkpoints, 2)
    assert steps(checkpoints) == [1]
    assert found(checkpoints) == 1


def test_leftovers_of_a_kill_are_cleared(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path, keep=2), 1)
    (tmp_path / ".tmp-step-2-abc").mkdir()
    (tmp_path / "step-1").rename(tmp_path / ".old-step-1")
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert found(checkpoints) == 1
    assert steps(checkpoints) == [1]


def test_nothing_that_could_run_is_read(tmp_path: Path) -> None:
    """An optimizer state is data."""

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "canary",))

    torch.save({"optimizer": Payload(), "schedule": {}}, tmp_path / "optimizer.pt")
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        Checkpoints.optimizer(tmp_path, torch.device("cpu"))
    assert not (tmp_path / "canary").exists()
