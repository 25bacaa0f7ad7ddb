"""From a command line to jobs: help, one run, or a sweep; errors become one line each and an exit code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prospect.config.schema import Config, Mode
from prospect.config.typed import Losses, with_loss, without_loss
from prospect.errors import ProspectError, UserError

if TYPE_CHECKING:
    from prospect.config.compose import Composer

Job = Callable[[Config], int]
Objective = Callable[[Config], float | None]
_INSPECTION = {"--info", "-i", "--hydra-help", "--shell-completion", "-sc", "--version"}
_TRAIN_MODES = (Mode.train, Mode.data, Mode.explain)
_EVAL_MODES = [mode.value for mode in Mode if mode not in _TRAIN_MODES]
_INTERRUPTED = 4


def run_command(argv: Sequence[str], losses: Losses, job: Job, objective: Objective = lambda config: None) -> int:
    """train.py: compose, check everything, then ``job`` once, or once a member of a sweep; the exit code.

    ``objective`` tells sweepers that look for the best how good a finished run is.
    """
    from prospect.config.help import help_text

    if {"-h", "--help"}.intersection(argv):
        print(help_text())
        return 0
    if _INSPECTION.intersection(word.split("=")[0] for word in argv):
        return _inspect()
    words = [word for word in argv if word not in ("--cfg", "-c", "--cfg=job")]
    if len(words) < len(argv):
        job, words = _show, [word for word in words if word != "job"]
    return guarded(lambda: _train(words, losses, job, objective), debug=_wants_debug(argv))


def eval_command(argv: Sequence[str], losses: Losses, job: Job) -> int:
    """eval.py: a run's own configuration with some keys set anew, then ``job``; the exit code."""
    return guarded(lambda: _evaluate(list(argv), losses, job), debug=_wants_debug(argv))


def guarded(run: Callable[[], int], debug: bool = False) -> int:
    """The exit code of ``run``; what goes wrong is said in a line, or with ``debug`` raised."""
    try:
        return run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # | head
        return _INTERRUPTED
    except ProspectError as error:
        if debug:
            raise
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if debug:
            raise
        first = " ".join(str(error).split())[:300]
        print(f"error: {type(error).__name__}: {first} (unforeseen; debug=true shows where)", file=sys.stderr)
        return 1


class _FailedError(Exception):
    """A member of a sweep ended with this exit code; the others go on."""


def _train(argv: list[str], losses: Losses, job: Job, objective: Objective) -> int:
    from prospect.config.chain import chain_in
    from prospect.config.compose import composer

    chain = chain_in(argv)
    if chain is not None:
        return _chain(chain, argv, losses, job)
    asked = bool({"-m", "--multirun"}.intersection(argv))
    with composer() as hydra:
        words = hydra.words([word for word in argv if word not in ("-m", "--multirun")])
        members = hydra.sweep(words, asked)
        configs = _prepare(hydra, [words] if members is None else members, losses)
        if members is None:
            return job(configs[0])
        names = dict.fromkeys(str(config.exp_name) for config in configs)
        print(f"{len(names)} runs: {', '.join(names)}", flush=True)
        prepared = {tuple(member): config for member, config in zip(members, configs, strict=True)}
        try:
            hydra.multirun(words, lambda _: _member(prepared, losses, job, objective))
        except _FailedError as failed:
            return int(failed.args[0])
    return 0


def _chain(name: str, argv: Sequence[str], losses: Losses, job: Job) -> int:
    """The runs of a chain, all of them checked before the first; one that does not end well ends the chain."""
    from prospect.config.chain import stages
    from prospect.config.compose import composer, parse

    with composer() as hydra:
        members = [hydra.words(words) for words in stages(name, argv)]
        several = [word for words in members for word in words if parse(word).is_sweep_override()]
        if several:
            raise UserError(f"{several[0].lstrip('+')}: a chain is no sweep; give the command once for each value")
        configs = _prepare(hydra, members, losses)
    for config in configs:
        print(f"\n=== {config.exp_name}", flush=True)
        code = guarded(functools.partial(job, config), config.debug)
        if code:
            print(f"{name}: stopped at {config.exp_name}; the same command continues there", file=sys.stderr)
            return code
    return 0


def _prepare(hydra: Composer, members: Sequence[Sequence[str]], losses: Losses) -> list[Config]:
    """All members of a sweep, or the one run: checked and named before anything starts."""
    from prospect.config.compose import typed_keys
    from prospect.config.identity import default_name

    configs: list[Config] = []
    problems: list[str] = []
    for words in members:
        composed = hydra.compose(words)
        missing = [f"{g}=<{'|'.join(hydra.members(g))}>" for g in ("loss", "model") if not composed.choices.get(g)]
        if missing:
            raise UserError(f"choose {' and '.join(missing)} (python train.py --help says what they are)")
        try:
            config = without_loss(composed.values, typed_keys(words))
        except UserError as error:
            problems += str(error).splitlines()
            continue
        _check_mode(config)
        config.environment = composed.environment
        config.exp_name = config.exp_name or default_name(*hydra.name_parts(words))
        configs.append(config)
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    _check_names([str(config.exp_name) for config in configs], [hydra.compose(words).values for words in members])
    for config, words in zip(configs, members, strict=True):
        with_loss(config, hydra.compose(words).values, losses)
    return configs


def _check_names(names: list[str], values: list[dict[str, Any]]) -> None:
    """Two members may have one name where they are one run: the second finds it finished."""
    from prospect.config.identity import deciding

    known: dict[str, dict[str, Any]] = {}
    for name, own in zip(names, values, strict=True):
        if known.setdefault(name, deciding(own)) != deciding(own):
            raise UserError(
                f"exp_name: {names.count(name)} runs of this sweep would be {name}; leave exp_name out, "
                "or let it differ: 'exp_name=kto_${loss.beta}'"
            )


def _check_mode(config: Config) -> None:
    if config.mode not in _TRAIN_MODES:
        folder = Path(config.cache_dir) / (config.exp_name or "<exp_name>")
        raise UserError(
            f"mode: train.py knows train, data and explain; python eval.py --config-path={folder} ++mode={config.mode}"
        )


def _member(prepared: Mapping[tuple[str, ...], Config], losses: Losses, job: Job, objective: Objective) -> float | None:
    """One run of a sweep, wherever its launcher has put it; its best metric, for sweepers that look for the best."""
    from hydra.core.hydra_config import HydraConfig

    from prospect.config.compose import composer

    words = list(HydraConfig.get().overrides.task)
    config = prepared.get(tuple(words))
    if config is None:  # a sweeper that chooses its members as it goes
        with composer() as hydra:
            (config,) = _prepare(hydra, [words], losses)
    print(f"\n=== {config.exp_name}", flush=True)
    code = guarded(functools.partial(job, config), config.debug)
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise _FailedError(code)
    return objective(config)


def _evaluate(argv: list[str], losses: Losses, job: Job) -> int:
    from prospect.config.stored import check_given, load_run_config

    path, overrides, rest = None, [], iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in ("--config-path", "-cp"):
            path = value if equals else next(rest, None)
        else:
            overrides.append(word)
    if not path:
        raise UserError("--config-path: give the run folder or its config.yaml")
    config = load_run_config(path, overrides, losses, to_follow=True)
    check_given(config, path)
    if config.mode in _TRAIN_MODES:
        raise UserError(f"mode: say what to do with the run: ++mode={', '.join(_EVAL_MODES)}")
    return job(config)


def _show(config: Config) -> int:
    """--cfg job: the configuration, checked and named, instead of its run."""
    from prospect.config.stored import as_yaml

    print(as_yaml(config))
    return 0


def _inspect() -> int:
    """Hydra's own questions about a composition: --info defaults, shell completion."""
    import hydra

    from prospect.config.compose import CONFIG

    hydra.main(config_path=str(CONFIG), config_name="config", version_base="1.3")(lambda _: None)()
    return 0


def _wants_debug(argv: Sequence[str]) -> bool:
    return any(word.lstrip("+").lower() == "debug=true" for word in argv)
