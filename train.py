"""Train a language model from human feedback: python train.py loss=<loss> model=<model> [key=value …]; see --help."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from prospect.config import Config, LossConfig, run_command


def losses() -> Mapping[str, type[LossConfig]]:
    """Hyperparameters by trainer name; imports torch, hence only when the rest of a configuration is right."""
    from trainers import losses

    return losses()


def job(config: Config) -> int:
    """One run, or a look at its data or its loss."""
    if config.mode == "data":
        from trainers.show_data import show_data

        return show_data(config)
    if config.mode == "explain":
        from trainers.explain import explain

        return explain(config)
    from trainers.launch import train

    return train(config)


def objective(config: Config) -> float | None:
    """What a sweep that searches for the best looks at."""
    from prospect.checkpoint.run import Run

    return Run.of(config).metric(config.best_metric)


if __name__ == "__main__":
    sys.exit(run_command(sys.argv[1:], losses, job, objective))
