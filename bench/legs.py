"""Legs of a comparison: one process of bench/run.py each, kept as lines of a file so that a broken run is continued.

A leg counts again only where options, code and package versions are those that it was run with.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

FOREIGN = 0.1  # cores
DEVIATION = 0.1  # of the median
AGREEMENT = {"float32": 1e-3, "bfloat16": 5e-2}  # relative, of what step 1 has computed
ROOT = Path(__file__).resolve().parents[1]
_SHARED = ("bench/run.py", "bench/job.py", "bench/meter.py", "bench/counters.py")
_CODE = {
    "prospect": (*_SHARED, "bench/adapters/prospect.py", "prospect", "trainers", "dataloaders"),
    "packed": (
        *_SHARED,
        "bench/adapters/packed.py",
        "bench/adapters/prospect.py",
        "prospect",
        "trainers",
        "dataloaders",
    ),
    "trl": (*_SHARED, "bench/adapters/trl.py"),
}
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**35)}


class Disagreement(Exception):
    """Two frameworks did not compute the same thing."""


@dataclass(frozen=True, slots=True)
class Leg:
    """What one process measured; seconds and MB."""

    tok: int
    ex: int
    wall: float
    cpu: float
    foreign: float
    rss_start: float
    peak: float
    start_s: float
    start_cpu: float
    ref_s: float
    ref_cpu: float
    ref_ex: int
    loss: float
    grad_norm: float
    logps: float
    step_tok: int
    step_tok_run: int
    step_tok_frozen: int
    step_flops: int
    leg_s: float  # the whole process

    @classmethod
    def of(cls, line: dict[str, Any]) -> Leg:
        """From its line."""
        return cls(**{name: line[name] for name in cls.__slots__})

    @property
    def tok_s(self) -> float:
        """Trained tokens a second, in the timed steps."""
        return self.tok / self.wall

    @property
    def memory(self) -> float:
        """The peak over what the imports take."""
        return self.peak - self.rss_start

    def whole(self, epochs: int, rows: int, tokens: float) -> tuple[float, float]:
        """Wall and processor time of a run with all that comes before its first step: ``tokens`` in ``rows``."""
        share, steps = rows / max(self.ref_ex, 1), epochs * tokens / self.tok
        wall = self.start_s + self.ref_s * share + self.wall * steps
        return wall, self.start_cpu + self.ref_cpu * share + self.cpu * steps


def undisturbed(legs: Seq[Leg]) -> list[Leg]:
    """Those in which no other process ran, and nothing else made processor time unusual."""
    quiet = [leg for leg in legs if leg.foreign <= FOREIGN]
    usual = median(leg.cpu for leg in quiet) if quiet else 0.0
    return [leg for leg in quiet if abs(leg.cpu - usual) <= DEVIATION * usual]


def agree(own: Leg, peer: Leg, dtype: str, same_batches: bool) -> None:
    """Raises Disagreement where two legs differ in what they computed."""
    if same_batches and own.tok != peer.tok:
        raise Disagreement(f"tokens: {own.tok} and {peer.tok}")
    for name, ours, theirs in (
        ("loss", own.loss, peer.loss),
        ("gradient norm", own.grad_norm, peer.grad_norm),
        ("summed log-probabilities", own.logps, peer.logps),
    ):
        if not abs(ours - theirs) <= AGREEMENT[dtype] * abs(theirs):
            raise Disagreement(f"{name} of step 1: {ours} and {theirs}")


@dataclass(frozen=True, slots=True)
class Ledger:
    """The file of all legs that were ever run."""

    file: Path

    def legs(self, key: dict[str, str]) -> list[Leg]:
        """Those of a key, oldest first. A line that a killed process left unfinished is none."""
        found = []
        for text in self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else []:
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if line["key"] == key:
                found.append(Leg.of(line))
        return found

    def add(self, key: dict[str, str], line: dict[str, Any]) -> None:
        """One more."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"key": key, **line}) + "\n")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the legs of all sides run in."""

    keep_memory: bool = False  # glibc keeps what is freed
    spin: bool = False  # threads wait for each other as torch comes, which uses processor time; else they sleep

    def key(self) -> dict[str, str]:
        """What of it numbers depend on."""
        return {"keep_memory": str(self.keep_memory), **({"spin": "True"} if self.spin else {})}

    def variables(self) -> dict[str, str]:
        """The environment of a leg."""
        found = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        found["OMP_NUM_THREADS"] = _threads()
        if not self.spin:
            found["OMP_WAIT_POLICY"] = "PASSIVE"
        return found | (_KEEP_MEMORY if self.keep_memory else {})


def key_of(options: dict[str, str], settings: Seq[str], surroundings: Surroundings) -> dict[str, str]:
    """What a leg's numbers depend on."""
    versions = ["torch", "transformers", *(["trl"] if options["--fw"] == "trl" else [])]
    data = hashlib.sha256(Path(options["--data"]).read_bytes()).hexdigest()[:12]
    code = hashlib.sha256()
    for name in _CODE[options["--fw"]]:
        path = ROOT / name
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            code.update(file.read_bytes())
    return {
        **options,
        "set": " ".join(settings),
        "threads": _threads(),
        **surroundings.key(),
        "data": data,
        "code": code.hexdigest()[:12],
        **{name: version(name) for name in versions},
    }


def _threads() -> str:
    return str(len(os.sched_getaffinity(0)))


def run_leg(options: dict[str, str], settings: Seq[str], surroundings: Surroundings) -> dict[str, Any]:
    """The line of one process of bench/run.py. Raises CalledProcessError when it fails, after showing what it said."""
    words = [word for item in options.items() for word in item] + [w for value in settings for w in ("--set", value)]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "run.py"), *words],
        env=surroundings.variables(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        done.check_returncode()
    line: dict[str, Any] = json.loads(done.stdout)
    return line | {"leg_s": round(time.monotonic() - start, 1)}
