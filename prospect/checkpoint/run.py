"""A run's folder: one configuration, one live process, and the files that the contract promises.

<cache_dir>/<exp_name>/
  config.yaml      the resolved configuration; another one under the same name is refused
  manifest.json    parents and their hashes, code, packages, data, seeds; when it started and finished
  metrics.jsonl    one line a log step
  log/             one file a process
  chat_date.txt    the day that prompts name, where the chat template writes the date
  checkpoints/     resume state
  LATEST/ BEST/    the policy as a Hugging Face folder: the newest, and the one of the best evaluation
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from prospect.checkpoint.commit import committed, link_tree, recover, write_text
from prospect.config import first_difference, load_run_config, save_config
from prospect.config.schema import Config, LossConfig
from prospect.errors import UserError
from prospect.locks import claimed

_DAY = "chat_date.txt"


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of one run. Only the main process writes to it, but for its log."""

    folder: Path

    @classmethod
    def of(cls, config: Config) -> Run:
        """The run folder that a configuration names."""
        assert config.exp_name is not None
        return cls(Path(config.local_run_dir or Path(config.cache_dir) / config.exp_name))

    @property
    def manifest_file(self) -> Path:
        """Where the manifest stands."""
        return self.folder / "manifest.json"

    def manifest(self) -> dict[str, Any]:
        """The manifest, empty before the run has started."""
        return json.loads(self.manifest_file.read_text()) if self.manifest_file.is_file() else {}

    def finished(self) -> bool:
        """Whether the run has reached its end."""
        return "finished_at" in self.manifest()

    @contextmanager
    def claim(self, config: Config, losses: Callable[[], dict[str, type[LossConfig]]]) -> Iterator[None]:
        """Hold the folder for this process, after checking that it belongs to this configuration.

        Raises:
            UserError: another process runs in it, or it holds a run with another configuration.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with claimed(self.folder / ".lock", f"the run folder {self.folder}"):
            recover(self.folder)
            stored = self.folder / "config.yaml"
            if stored.is_file():
                different = first_difference(load_run_config(str(stored), [], losses), config)
                if different is not None:
                    raise UserError(
                        f"exp_name: {self.folder} holds a run with another configuration: {different}; "
                        "choose another exp_name"
                    )
            else:
                save_config(config, stored)
            yield

    def chat_day(self) -> date:
        """What a chat template that writes the date takes for today: the day that the run has kept, else today."""
        file = self.folder / _DAY
        return date.fromisoformat(file.read_text().strip()) if file.is_file() else date.today()

    def keep_chat_day(self, day: date) -> None:
        """Keep the day, so that training that continues and sampling on later days write the same prompts."""
        write_text(self.folder / _DAY, f"{day.isoformat()}\n")

    def export(self, checkpoint: Path, name: str) -> None:
        """Publish a checkpoint's policy as the folder ``name``; shares its bytes where the file system can."""
        with committed(self.folder / name) as building:
            link_tree(checkpoint / "policy", building)

    def start(self, facts: dict[str, Any]) -> None:
        """Write the manifest of a fresh start."""
        write_text(self.manifest_file, json.dumps({"started_at": _now(), **facts}, indent=1))

    def metric(self, name: str) -> float | None:
        """An evaluation metric of the finished run, None where it has none."""
        value = self.manifest().get("summary", {}).get("eval", {}).get(f"eval/{name}")
        return None if value is None else float(value)

    def finish(self, summary: dict[str, Any]) -> None:
        """Note in the manifest that the run is complete."""
        write_text(
            self.manifest_file, json.dumps({**self.manifest(), "finished_at": _now(), "summary": summary}, indent=1)
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
