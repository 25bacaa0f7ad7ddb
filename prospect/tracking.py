"""Where metrics go: metrics.jsonl always, Weights & Biases and TensorBoard where asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from prospect.checkpoint.commit import write_text
from prospect.config.environment import written
from prospect.config.schema import Config, WandbMode
from prospect.errors import MachineError


class Sink(Protocol):
    """One place that takes metrics."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of one step."""
        ...

    def close(self) -> None:
        """Write out what is pending."""
        ...


class Tracker:
    """All sinks of a run. A run that continues at ``step`` forgets lines of later steps: they will come again."""

    def __init__(self, config: Config, folder: Path, step: int, known: Mapping[str, str]) -> None:
        self.ids: dict[str, str] = dict(known)
        self.sinks: list[Sink] = [_Lines(folder / "metrics.jsonl", step)]
        if config.tensorboard.enabled and not config.debug:
            self.sinks.append(_Tensorboard(folder / "tensorboard", step))
        if config.wandb.enabled and not config.debug:
            sink = _Wandb(config, folder, self.ids.get("wandb"))
            self.ids["wandb"] = sink.run.id
            self.sinks.append(sink)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of one step everywhere."""
        for sink in self.sinks:
            sink.log(metrics, step)

    def close(self) -> None:
        """Write out what is pending."""
        for sink in self.sinks:
            sink.close()


def last_values(file: Path) -> dict[str, float]:
    """The latest value of each metric in a metrics.jsonl."""
    found: dict[str, float] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        found |= json.loads(line)
    return found


def forget_after(file: Path, step: int) -> None:
    """Drop the lines of later steps, and one torn by a kill, from a file whose lines have a ``step``."""
    if file.is_file():
        write_text(file, "".join(line for line in file.read_text("utf-8").splitlines(True) if _up_to(line, step)))


class _Lines:
    def __init__(self, file: Path, step: int) -> None:
        forget_after(file, step)
        self.handle = file.open("a", encoding="utf-8")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.handle.write(json.dumps({"step": step, **metrics}) + "\n")
        self.handle.flush()

    def close(self) -> None:
        self.handle.close()


def _up_to(line: str, step: int) -> bool:
    try:
        return line.endswith("\n") and int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError):
        return False  # a line torn by a kill


class _Tensorboard:
    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MachineError("tensorboard.enabled: not installed; pip install 'prospect[track]'") from error
        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


_WANDB_MODES: dict[WandbMode, Literal["online", "offline", "disabled"]] = {
    WandbMode.online: "online",
    WandbMode.offline: "offline",
    WandbMode.disabled: "disabled",
}


class _Wandb:
    def __init__(self, config: Config, folder: Path, run_id: str | None) -> None:
        import wandb

        self.run: Any = wandb.init(
            entity=config.wandb.entity,
            project=config.wandb.project,
            name=config.exp_name,
            mode=_WANDB_MODES[config.wandb.mode],
            dir=str(folder),
            id=run_id,
            resume="allow",
            config=written(config),
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def close(self) -> None:
        self.run.finish()
