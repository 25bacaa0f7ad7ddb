"""What the tests of this folder run in two processes. Apart, so that the processes import little."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from prospect.config.schema import Config
from prospect.errors import UserError
from prospect.parallel import World


def fail(config: Config, world: World) -> int:
    """Process 1 meets an error, process 0 waits for it."""
    if world.rank == 1:
        raise UserError("datasets.pairs: a mistake that one process meets")
    world.barrier()
    return 0


def tell(config: Config, world: World) -> int:
    """Everything that can cross between processes, written down by each; process 1 ends with the higher code."""
    one, two, three = (torch.nn.Parameter(torch.zeros(n)) for n in (3, 2, 1))
    if world.is_main:
        one.grad = torch.ones(3)
    two.grad = torch.full((2,), float(world.rank + 1))
    world.sum_gradients([one, two, three])
    world.barrier()
    facts = {
        "sum": world.sum(world.rank + 1.0, 0.5),
        "gather": world.gather(f"rank {world.rank}"),
        "from_main": world.from_main(world.rank),
        "gradients": [p.grad.tolist() for p in (one, two, three) if p.grad is not None],
    }
    (Path(config.cache_dir) / f"{world.rank}.json").write_text(json.dumps(facts))
    return 4 * world.rank
