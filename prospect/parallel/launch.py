"""Start a run's processes: none more where a launcher (torchrun, Slurm) has started them, else one a visible GPU."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable

import torch

from prospect.config.schema import Config
from prospect.errors import MachineError, ProspectError
from prospect.parallel.world import World

Worker = Callable[[Config, World], int]
_SAME_ERROR_SECONDS = 3.0  # an error that all processes meet is said by the first, whose exit stops the others


def launch(worker: Worker, config: Config) -> int:
    """Run ``worker`` in every process of the run; its exit code.

    Raises:
        MachineError: more processes than GPUs are asked for.
    """
    gpus = torch.cuda.device_count()
    count = config.parallel.processes or max(gpus, 1)
    if gpus and count > gpus:
        raise MachineError(f"parallel.processes: {count} asked for, {gpus} GPUs are visible")
    if "RANK" in os.environ or count == 1:
        return _work(worker, config)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Without this, restarted or concurrent runs on one machine may meet in a stale rendezvous store.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    settings = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0
    )
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the worker has said what is wrong
    try:
        codes: dict[int, int] = elastic_launch(settings, _child)(worker, config)
        return max(codes.values())
    except ChildFailedError as error:
        return max([failure.exitcode for failure in error.failures.values() if failure.exitcode > 0], default=1)


def _work(worker: Worker, config: Config) -> int:
    with World.joined() as world:
        return worker(config, world)


def _child(worker: Worker, config: Config) -> int:
    """One process of several: an error ends it with its exit code, upon which the others are stopped."""
    try:
        return _work(worker, config)
    except ProspectError as error:
        if config.debug:
            raise
        rank = int(os.environ["RANK"])
        if rank:
            time.sleep(_SAME_ERROR_SECONDS)
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except Exception:
        time.sleep(_SAME_ERROR_SECONDS)  # may be the echo of another process's error, whose exit stops this one
        raise
