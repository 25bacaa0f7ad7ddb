"""Metrics on the evaluation records: the same records, in the same chunks, each time."""

from __future__ import annotations

from dataloaders.loader import EVALUATION
from prospect.metrics import Tally
from trainers.basic import BasicTrainer, Engine


def evaluate(trainer: BasicTrainer, engine: Engine) -> dict[str, float]:
    """All metrics under ``eval/``; with several data sets also each one's, under ``eval/<dataset>/``."""
    by_dataset: dict[str, list[Tally]] = {}
    number = EVALUATION
    for dataset, chunks in engine.data.eval_chunks().items():
        for records in chunks:
            by_dataset.setdefault(dataset, []).append(trainer.step(records, number, engine, train=False))
            number += 1
    totals = {
        dataset: Tally.joined(engine.world.gather(Tally.joined(tallies))) for dataset, tallies in by_dataset.items()
    }
    found = {f"eval/{name}": value for name, value in Tally.joined(totals.values()).means().items()}
    if len(totals) > 1:
        for dataset, tally in totals.items():
            found |= {f"eval/{dataset}/{name}": value for name, value in tally.means().items()}
    return found
