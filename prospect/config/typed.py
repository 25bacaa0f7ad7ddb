"""From plain values to a checked configuration. The loss comes last: only its types need the trainers, and torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from prospect.config import checks, names
from prospect.config.convert import convert, flatten
from prospect.config.schema import Config, LossConfig
from prospect.config.stranger import TRUST
from prospect.errors import UserError, nearest

Losses = Mapping[str, type[LossConfig]] | Callable[[], Mapping[str, type[LossConfig]]]


def checked(values: Mapping[str, Any], typed: Collection[str], losses: Losses) -> Config:
    """The configuration; ``typed``: the keys set on the command line.

    Raises:
        UserError: one line for everything that is wrong with it.
    """
    config = without_loss(values, typed)
    return with_loss(config, values, losses)


def without_loss(values: Mapping[str, Any], typed: Collection[str]) -> Config:
    """All but the loss, checked."""
    loss = values.get("loss")
    problems = [] if isinstance(loss, Mapping) else ["loss: none is given"]
    there = flatten({"loss": loss}) if isinstance(loss, Mapping) else {}
    config = convert(Config, {k: v for k, v in values.items() if k != "loss"}, "", problems, there)
    problems += _unchosen_datasets(values)
    for name in ("cache_dir", "local_run_dir", "samples_dir"):
        path = getattr(config, name)
        setattr(config, name, path and str(Path(path).expanduser()))
    problems += checks.problems(config, typed)
    if config.model.trust_remote_code and TRUST not in typed:
        problems.append(f"{TRUST}: this is said on the command line alone: ++{TRUST}=true")
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return config


def with_loss(config: Config, values: Mapping[str, Any], losses: Losses) -> Config:
    """The same configuration with its loss, and everything that needs torch checked too."""
    known = losses() if callable(losses) else losses
    given = values["loss"]
    trainer = str(given.get("trainer"))
    if trainer not in known:
        hint = nearest(trainer, known) or f"; there are {', '.join(known)}"
        raise UserError(f"loss.trainer: trainers/__init__.py has no {trainer}{hint}")
    own = [field.name for field in fields(known[trainer])]
    problems = [
        f"loss.{key}: {trainer} has no such key{_loss_key(trainer, key, own)}" for key in given if key not in own
    ]
    config.loss = convert(known[trainer], {k: v for k, v in given.items() if k in own}, "loss.", problems)
    problems = problems or [*checks.problems(config, ()), *checks.rehearse(config)]
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return config


def _loss_key(trainer: str, key: str, own: list[str]) -> str:
    here = names.OWN.get((trainer, key)) or names.FOREIGN.get(key)
    if here is not None:
        return f"; here: {here}"
    return nearest(key, own) or f"; its own are {', '.join(own[len(fields(LossConfig)) :]) or 'none'}"


def _unchosen_datasets(values: Mapping[str, Any]) -> list[str]:
    """A key of a data set that is not among the chosen ones, instead of a new data set that has no source."""
    chosen = values.get("datasets")
    if not isinstance(chosen, Mapping):
        return []
    nameless = [name for name, keys in chosen.items() if isinstance(keys, Mapping) and "source" not in keys]
    others = [str(name) for name in chosen if name not in nameless]
    return [
        f"datasets.{name}: not among datasets=[{','.join(others)}]{nearest(str(name), others)}; "
        f"add it there, or give datasets.{name}.source"
        for name in nameless
    ]
