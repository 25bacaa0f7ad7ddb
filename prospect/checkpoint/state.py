"""Resume state: weights, optimizer, schedule, position. With it and the seed, a run continues bit for bit.

No random generator is stored: a step seeds itself from (seed, step), and the order of the data is a pure function of
both.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from prospect.checkpoint.commit import committed, fault, recover
from prospect.logs import log

REFERENCE = "reference.pt"


@dataclass(slots=True)
class Position:
    """How far a run has come. ``best`` is the lowest (or highest) evaluation metric so far, ``best_step`` its step."""

    step: int = 0
    examples: int = 0
    best: float | None = None
    best_step: int | None = None
    milestone: bool = False  # also published under its own name
    stopped: str | None = None  # why the run ended before its last step
    tokens_per_microbatch: int | None = None  # found on the device of the run
    head_kernel: str | None = None  # the fastest on it
    trainer: dict[str, float] = field(default_factory=dict)  # what the loss carries from step to step
    tracker: dict[str, str] = field(default_factory=dict)  # run ids of trackers, to continue their curves


class Checkpoints:
    """The folder of resume states of one run; keeps the last ``keep`` and the best."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        folder.mkdir(parents=True, exist_ok=True)
        recover(folder)

    def save(
        self,
        position: Position,
        save_model: Callable[[Path], None],
        optimizer: dict[str, Any],
        schedule: dict[str, Any],
        reference: dict[str, torch.Tensor] | None = None,
    ) -> Path:
        """Commit a new state, then drop what is no longer wanted; returns its folder.

        ``reference``: weights of a reference model that follows the policy.
        """
        target = self.folder / f"step-{position.step}"
        with committed(target) as building:
            save_model(building / "policy")
            torch.save({"optimizer": optimizer, "schedule": schedule}, building / "optimizer.pt")
            if reference is not None:
                torch.save(reference, building / REFERENCE)
            (building / "position.json").write_text(json.dumps(asdict(position)))
        self._rotate(position)
        return target

    def latest(self) -> tuple[Path, Position] | None:
        """The newest state that is whole; says which newer ones are not, and why."""
        for folder in self._all():
            wrong = fault(folder)
            if wrong is None:
                return folder, Position(**json.loads((folder / "position.json").read_text()))
            log.warning("%s is not used: %s", folder, wrong)
        return None

    @staticmethod
    def optimizer(folder: Path, device: torch.device) -> tuple[dict[str, Any], dict[str, Any]]:
        """Optimizer and schedule states of a checkpoint."""
        stored = torch.load(folder / "optimizer.pt", map_location=device, weights_only=True)
        return stored["optimizer"], stored["schedule"]

    @staticmethod
    def reference(folder: Path, device: torch.device) -> dict[str, torch.Tensor]:
        """Weights of the reference model of a checkpoint."""
        weights: dict[str, torch.Tensor] = torch.load(folder / REFERENCE, map_location=device, weights_only=True)
        return weights

    def _all(self) -> list[Path]:
        folders = [p for p in self.folder.glob("step-*") if p.name.removeprefix("step-").isdigit()]
        return sorted(folders, key=_step, reverse=True)

    def _rotate(self, position: Position) -> None:
        """Drop what is too old, and damaged folders of later steps: a whole one would have been continued from."""
        folders = self._all()
        later = [folder for folder in folders if _step(folder) > position.step]
        for folder in [*later, *folders[len(later) + self.keep :]]:
            if _step(folder) != position.best_step:
                shutil.rmtree(folder, ignore_errors=True)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))
