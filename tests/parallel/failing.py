"""A worker that fails in one of its processes. Apart, so that the processes import little."""

from __future__ import annotations

from prospect.config.schema import Config
from prospect.errors import UserError
from prospect.parallel import World


def fail(config: Config, world: World) -> int:
    """Process 1 meets an error, process 0 waits for it."""
    if world.rank == 1:
        raise UserError("datasets.pairs: a mistake that one process meets")
    world.barrier()
    return 0
