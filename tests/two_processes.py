"""What the tests run in two processes: workers that `launch` can import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from prospect.config.schema import Config
from prospect.parallel import World
from tests import tiny
from trainers.evaluation import evaluate
from trainers.launch import train_in_process

STEPS = (0, 2)  # the last holds a single record: one of two processes has none
CHANGES: dict[str, Any] = {"n_examples": 17, "n_eval_examples": 9}


def step_facts(folder: Path, loss: str, world: World) -> dict[str, Any]:
    """Metrics and gradients of a full and of a one-record step, evaluation, and KTO's draws."""
    trainer, engine = tiny.trainer_and_engine(tiny.config(folder, loss, **CHANGES), world)
    drawn = [
        item.id if item is not None else None
        for number in STEPS
        for item in engine.data.mismatches(engine.data.step(number), number)
    ]
    return {
        "steps": [tiny.gradients(trainer, engine, number) for number in STEPS],
        "evaluation": evaluate(trainer, engine),
        "drawn": drawn,
    }


def world_facts(world: World) -> dict[str, Any]:
    """What the processes tell each other."""
    one, two, three = (torch.nn.Parameter(torch.zeros(n)) for n in (3, 2, 1))
    if world.is_main:
        one.grad = torch.ones(3)
    two.grad = torch.full((2,), float(world.rank + 1))
    world.sum_gradients([one, two, three])
    world.barrier()
    return {
        "sum": world.sum(world.rank + 1.0, 0.5),
        "gather": world.gather(f"rank {world.rank}"),
        "from_main": world.from_main(world.rank),
        "gradients": [p.grad for p in (one, two, three)],
    }


def measure(config: Config, world: World) -> int:
    """All facts of this process, into a file; then a whole run."""
    folder = Path(config.cache_dir)
    facts = {loss: step_facts(folder, loss, world) for loss in tiny.LOSSES} | {"world": world_facts(world)}
    torch.save(facts, folder / f"rank-{world.rank}.pt")
    return train_in_process(config, world)
