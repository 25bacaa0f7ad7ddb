"""Runs of a sweep, handed to Hydra: its basic launcher by itself, any other launcher or sweeper plugin where chosen."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from prospect.config.choices import CONFIG_DIR

# Nothing of Hydra's own on disk: a run's folder holds its configuration and logs.
_QUIET = (
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.run.dir=.",
    "hydra.sweep.dir=.",
    "hydra.sweep.subdir=.",
)


def launch_sweep(overrides: Sequence[str], member: Callable[[Any, Sequence[str]], None]) -> None:
    """Call ``member`` with the composed configuration and the overrides of each run."""

    @hydra.main(config_path=str(CONFIG_DIR), config_name="config", version_base="1.3")
    def task(composed: DictConfig) -> None:
        member(composed, list(HydraConfig.get().overrides.task))

    words = sys.argv
    try:
        sys.argv = [words[0], "--multirun", *_QUIET, *overrides]
        task()
    finally:
        sys.argv = words
