"""Whole runs in processes of their own, and the moments at which a test ends them."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.launcher import api

from prospect.config.convert import flatten
from prospect.config.schema import Config
from prospect.errors import ProspectError

FORKS = multiprocessing.get_context("forkserver")  # one import of torch for all runs
FORKS.set_forkserver_preload(["trainers.launch", "trainers.loop", "tests.runs"])
Point = tuple[str, int]  # a name of POINTS, and which call of it


def _points() -> dict[str, tuple[Any, str]]:
    """Moments of a run: before which function's call. Imported here, so that pytest's own process needs none of it."""
    from dataloaders import store
    from prospect.checkpoint import commit
    from prospect.checkpoint.run import Run
    from prospect.checkpoint.state import Checkpoints
    from prospect.model.policy import Policy
    from prospect.parallel import World
    from prospect.reference import ReferenceStore
    from prospect.tracking import Tracker
    from trainers import loop

    return {
        "tokenizing": (store, "trainable"),
        "storing reference values": (ReferenceStore, "put"),
        "starting": (Run, "start"),
        "evaluating": (loop, "evaluate"),
        "forward": (Policy, "logps"),
        "before the update": (World, "sum_gradients"),
        "after the update": (loop.Loop, "_after_step"),
        "logging": (Tracker, "log"),
        "saving weights": (loop, "save_policy"),
        "saving the optimizer": (torch, "save"),
        "writing a manifest": (commit, "_write_manifest"),
        "committing": (commit, "replace"),
        "renaming": (Path, "rename"),
        "rotating": (Checkpoints, "_rotate"),
        "publishing": (Run, "export"),
        "finishing": (Run, "finish"),
    }


def _arm(point: Point, act: Callable[[], Any]) -> None:
    """Do ``act`` before the given call of a function."""
    owner, name = _points()[point[0]]
    original, calls = getattr(owner, name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == point[1]:
            act()
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def _train(config: Config, point: Point | None, number: int, forget_optimizer: bool) -> None:
    from trainers.launch import train

    torch.set_num_threads(1)
    os.fsync = lambda fd: None  # it guards against a machine's end, not a process's, and takes half of the time
    if point is not None:
        _arm(point, lambda: os.kill(os.getpid(), number))
    if forget_optimizer:
        torch.optim.AdamW.load_state_dict = lambda *args: None  # type: ignore[method-assign]
    try:
        sys.exit(train(config))
    except ProspectError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def run(
    config: Config, point: Point | None = None, number: int = signal.SIGKILL, forget_optimizer: bool = False
) -> int | None:
    """Train in a process of its own, which gets the signal ``number`` at ``point``; its exit code."""
    process = FORKS.Process(target=_train, args=(config, point, number, forget_optimizer))
    process.start()
    process.join(120)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"a run hangs at {point}")
    return process.exitcode


@contextmanager
def warm_processes() -> Iterator[None]:
    """``launch`` starts its processes from the one that has imported already what they need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "LaunchConfig", partial(api.LaunchConfig, start_method=FORKS.get_start_method()))
        yield


def _bytes(value: Any) -> bytes:
    return torch.as_tensor(value).reshape(-1).view(torch.uint8).numpy().tobytes()


def result(folder: Path) -> dict[str, Any]:
    """All that a run leaves for good: hash of the weights, of the optimizer's state, and its metrics but for times."""
    newest = max((folder / "checkpoints").glob("step-*"), key=lambda p: int(p.name.split("-")[1]))
    stored = torch.load(newest / "optimizer.pt", weights_only=True)
    digest = hashlib.sha256()
    for index, values in sorted(stored["optimizer"]["state"].items()):
        for name, value in sorted(flatten(values).items()):  # bitsandbytes nests its own
            digest.update(f"{index} {name}".encode() + _bytes(value))
    digest.update(json.dumps([stored["optimizer"]["param_groups"], stored["schedule"]]).encode())
    (weights,) = (folder / "LATEST").glob("*model.safetensors")  # of the model, or of its adapter
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "optimizer": digest.hexdigest(),
        "metrics": [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines],
    }
