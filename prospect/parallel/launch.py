"""Start a run's processes: none more where a launcher (torchrun, Slurm) has started them, else one a visible GPU."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from prospect.config.schema import Config
from prospect.errors import MachineError
from prospect.parallel.world import World

Worker = Callable[[Config, World], int]


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
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Without this, restarted or concurrent runs on one machine may meet in a stale rendezvous store.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    settings = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0
    )
    codes = elastic_launch(settings, _work)(worker, config)
    return max(codes.values())


def _work(worker: Worker, config: Config) -> int:
    with World.joined() as world:
        return worker(config, world)
