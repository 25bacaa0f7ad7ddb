"""The sample file: ``{"sampled_at", "config", "samples": [{"prompt", "chosen", "policy", …}]}``, and how it grows.

Answers are appended to a partial file as they come, so a killed run continues where it stopped; the finished file
appears whole. A file of other settings under the same name is moved aside, never overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prospect.checkpoint.commit import write_text


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer with what it answers. ``prompt`` is what the model was given, ``messages`` and ``tools`` the same
    conversation in OpenAI's form: all of it, where ``prompt`` lacks ``prompt_cut`` tokens that had no room."""

    prompt: str
    chosen: str
    policy: str
    prompt_id: str
    sample: int
    dataset: str
    messages: list[dict[str, Any]]
    n_tokens: int
    finish: str
    tools: list[Any] = field(default_factory=list)
    prompt_cut: int = 0

    def row(self) -> dict[str, Any]:
        """As it stands in the file: tools and what was cut only where there is some."""
        return {key: value for key, value in asdict(self).items() if value or key not in ("tools", "prompt_cut")}


class Partial:
    """Samples of one process so far. ``key`` names the settings and the weights: those of another key do not count."""

    def __init__(self, file: Path, key: str, part: int) -> None:
        self.file, self.key, self.part = file, key, part
        file.parent.mkdir(parents=True, exist_ok=True)

    def done(self) -> dict[tuple[str, int], Sample]:
        """All samples of this key that any process has written, by (prompt, sample index)."""
        found = {}
        for path in self._paths():
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
                if not line.endswith("\n"):
                    continue  # torn by a kill
                row = json.loads(line)
                if row.pop("key") == self.key:
                    found[row["prompt_id"], row["sample"]] = Sample(**row)
        return found

    def add(self, samples: Iterable[Sample]) -> None:
        """Append and flush."""
        path = self.file.with_name(f".{self.file.stem}.{self.part}.partial.jsonl")
        if path.is_file() and not path.read_bytes().endswith(b"\n"):
            path.write_bytes(path.read_bytes().rpartition(b"\n")[0] + b"\n")
        with path.open("a", encoding="utf-8") as handle:
            for item in samples:
                handle.write(json.dumps({"key": self.key, **item.row()}) + "\n")

    def clear(self) -> None:
        """Drop the partial files, once the finished one stands."""
        for path in self._paths():
            path.unlink()

    def _paths(self) -> Iterator[Path]:
        return self.file.parent.glob(f".{self.file.stem}.*.partial.jsonl")


def finished_key(file: Path) -> str | None:
    """Key of a finished sample file, None where there is none that can be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return str(found["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def move_aside(file: Path) -> Path | None:
    """Keep an earlier file under another name; which, if there was one."""
    if not file.exists():
        return None
    stamp = datetime.fromtimestamp(file.stat().st_mtime, UTC).strftime("%Y%m%d-%H%M%S")
    kept = file.with_name(f"{file.stem}.{stamp}{file.suffix}")
    file.rename(kept)
    return kept


def write(file: Path, samples: Iterable[Sample], config: dict[str, Any], key: str) -> None:
    """The finished file, in one step."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"sampled_at": now, "key": key, "config": config, "samples": [item.row() for item in samples]}
    write_text(file, json.dumps(content, indent=1))
