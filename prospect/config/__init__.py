"""What a user may configure, checked where it is composed: one line for each mistake, before anything is loaded."""

from prospect.config.command import eval_command, run_command
from prospect.config.identity import first_difference
from prospect.config.schema import Config, LossConfig
from prospect.config.stored import load_run_config, save_config

__all__ = [
    "Config",
    "LossConfig",
    "eval_command",
    "first_difference",
    "load_run_config",
    "run_command",
    "save_config",
]
