"""What a later reader needs to know about where a run came from."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "hydra-core",
    "omegaconf",
)
_CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Parent:
    """A model that this run started from."""

    path: str
    digest: str  # of the weights as loaded
    files: str | None = None  # hash of the weights' files, where they are in a folder that may change


def facts(parents: list[Parent], data: dict[str, str], seed: int, hardware: str) -> dict[str, Any]:
    """Parents, code, packages, data fingerprints, seed and machine of a run."""
    return {
        "parents": [asdict(parent) for parent in parents],
        "code": checkout(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "data": data,
        "seed": seed,
        "hardware": hardware,
    }


def checkout() -> dict[str, str | None]:
    """The commit of the code and what has been changed since."""
    return {"commit": _git("rev-parse", "HEAD"), "diff": _git("diff", "HEAD")}


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(["git", *args], cwd=_CHECKOUT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
