"""From a command line to the job: every mistake one line on stderr, with its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from prospect.config.schema import Config, Mode
from prospect.errors import ProspectError, UserError

Job = Callable[[Config], int]


def run_command(argv: list[str], losses: Callable[[], Any], job: Job) -> int:
    """train.py: compose, check, and do the job of each run that the command stands for; the exit code."""
    return _guarded(argv, lambda: _run(argv, losses, job))


def eval_command(argv: list[str], losses: Callable[[], Any], job: Job) -> int:
    """eval.py: a finished run's configuration with overrides; the exit code."""
    return _guarded(argv, lambda: _evaluate(argv, losses, job))


def _run(argv: list[str], losses: Callable[[], Any], job: Job) -> int:
    from prospect.config.argv import parse, swept
    from prospect.config.compose import configuration, finished, members

    command = parse(argv)
    if command.help:
        from prospect.config.help import train_help

        print(train_help())
        return 0
    if not swept(command):
        config = _for(configuration(command.overrides, losses), (Mode.train, Mode.data), "train.py")
        return _show(config) if command.show else job(config)
    configs = [configuration(row, losses) for row in members(command)]  # all are right before the first starts
    print(f"sweep of {len(configs)} runs: {', '.join(str(c.exp_name) for c in configs)}", flush=True)
    if command.show:
        return max(map(_show, configs))
    codes: list[int] = []

    def member(composed: Any, overrides: Sequence[str]) -> None:
        config = finished(composed, overrides, losses)
        try:
            codes.append(job(config))
        except ProspectError as error:
            if config.debug:
                raise
            _say(error, prefix=f"{config.exp_name}: ")
            codes.append(error.exit_code)

    from prospect.config.sweep import launch_sweep

    launch_sweep(command.overrides, member)
    failed = sum(code != 0 for code in codes)
    print(f"sweep: {len(configs) - failed} of {len(configs)} runs finished")
    return max(codes, default=0)


def _evaluate(argv: list[str], losses: Callable[[], Any], job: Job) -> int:
    from prospect.config.saved import load_run_config

    path, overrides, words = None, [], iter(argv)
    for word in words:
        if word.startswith("--config-path"):
            path = word.partition("=")[2] or next(words, None)
        elif "=" in word and not word.startswith("-"):
            overrides.append(word)
        else:
            raise UserError(f"{word}: not understood; python eval.py --config-path=<run folder> ++mode=sample …")
    if not path:
        raise UserError("--config-path: missing; give a run folder or its config.yaml")
    if not any(word.lstrip("+").startswith("mode=") for word in overrides):
        raise UserError("mode: missing; add ++mode=sample, ++mode=eval or ++mode=alpacaeval")
    config = load_run_config(path, overrides, losses)
    config.local_run_dir = _run_folder(path)  # where the run is now, wherever it was made
    return job(_for(config, (Mode.sample, Mode.eval, Mode.alpacaeval), "eval.py"))


def _run_folder(path: str) -> str:
    from pathlib import Path

    given = Path(path).expanduser()
    return str(given if given.is_dir() else given.parent)


def _for(config: Config, modes: tuple[Mode, ...], script: str) -> Config:
    if config.mode not in modes:
        other = "eval.py" if script == "train.py" else "train.py"
        raise UserError(f"mode: {config.mode} belongs to {other}; {script} has {', '.join(modes)}")
    return config


def _show(config: Config) -> int:
    from dataclasses import asdict

    from omegaconf import OmegaConf

    print(OmegaConf.to_yaml(OmegaConf.create(asdict(config))))
    return 0


def _guarded(argv: list[str], action: Callable[[], int]) -> int:
    debug = any(word.lstrip("+").lower() == "debug=true" for word in argv)
    try:
        return action()
    except ProspectError as error:
        if debug:
            raise
        _say(error)
        return error.exit_code
    except KeyboardInterrupt:
        _say(ProspectError("interrupted"))
        return 4
    except BrokenPipeError:
        return 4


def _say(error: ProspectError, prefix: str = "") -> None:
    for line in str(error).splitlines():
        print(f"error: {prefix}{line}", file=sys.stderr, flush=True)
