"""Composed settings become the typed configuration; everything that does not fit is listed at once."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prospect.config.checks import findings, loss_findings
from prospect.config.choices import choices
from prospect.config.schema import Config, DatasetConfig, LossConfig, ModelConfig
from prospect.errors import UserError, nearest

Losses = Callable[[], Mapping[str, type[LossConfig]]]

# What users of other systems, or of this one's texts, write; and what it is called here.
ALIASES = {
    "learning_rate": "lr",
    "num_train_epochs": "n_epochs",
    "epochs": "n_epochs",
    "max_steps": "n_examples (steps · model.batch_size)",
    "per_device_train_batch_size": "model.batch_size (the examples of one optimizer step, over all processes)",
    "batch_size": "model.batch_size",
    "max_length": "model.max_length",
    "max_prompt_length": "model.max_prompt_length",
    "gradient_accumulation_steps": "model.gradient_accumulation_steps",
    "gradient_checkpointing": "model.activation_checkpointing",
    "save_steps": "save_every (in examples)",
    "save_strategy": "save_every (in examples)",
    "eval_steps": "eval_every (in examples)",
    "logging_steps": "minimum_log_interval_secs",
    "warmup_ratio": "warmup",
    "lr_scheduler_type": "lr_schedule",
    "output_dir": "cache_dir and exp_name",
    "run_name": "exp_name",
    "beta": "loss.beta",
    "resume": "nothing: the same command continues an unfinished run",
    "train_datasets": "datasets",
    "dataset": "datasets",
}


class ConfigErrors(UserError):
    """All mistakes of one configuration."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def typed(raw: Mapping[str, Any], losses: Losses) -> Config:
    """The configuration that composed settings mean; ``losses`` is asked for only when all else is right.

    Raises:
        ConfigErrors: unknown keys, wrong types, missing choices, values out of range.
    """
    errors: list[str] = []
    others = {key: value for key, value in raw.items() if key != "loss"}
    for group in ("loss", "model"):
        if not raw.get(group):
            errors.append(f"{group}: nothing is chosen; add {group}=<one of {', '.join(choices(group))}>")
            others.pop(group, None)
    config = _build(Config, others, "", errors)
    assert isinstance(config, Config)
    if errors := errors or findings(config):
        raise ConfigErrors(errors)
    loss, table = dict(raw["loss"]), losses()
    name = str(loss.get("trainer"))
    if name not in table:
        raise ConfigErrors([f"loss.trainer: there is no trainer `{name}`{nearest(name, table)}"])
    config.loss = _build(table[name], loss, "loss.", errors)
    if errors := errors or loss_findings(config):
        raise ConfigErrors(errors)
    return config


def _build(kind: type, values: Mapping[str, Any], at: str, errors: list[str]) -> Any:
    """An instance of a dataclass from plain values; mistakes are added to ``errors``."""
    hints = typing.get_type_hints(kind)
    known = {f.name for f in fields(kind)}
    plain: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            errors.append(f"{at}{key}: unknown key{_meant(str(key), at, known, value)}")
        elif is_dataclass(hints[key]):
            if isinstance(value, Mapping):
                plain[key] = _build(typing.cast(type, hints[key]), value, f"{at}{key}.", errors)
            else:
                errors.append(f"{at}{key}: `{value}` is no group of keys; set {at}{key}.<key>=…")
        elif key == "datasets" and isinstance(value, Mapping):
            plain[key] = {name: _dataset(str(name), row or {}, errors) for name, row in value.items()}
        else:
            try:
                plain[key] = _leaf(kind, key, value)
            except (OmegaConfBaseException, ValueError):
                errors.append(f"{at}{key}: `{value}` is not {_expected(hints[key], str(value))}")
    return kind(**plain) if not errors else kind()


def _dataset(name: str, row: Mapping[str, Any], errors: list[str]) -> DatasetConfig:
    """One data set; a known name is its own source where none is given."""
    source = name if name in choices("datasets") else DatasetConfig().source
    built = _build(DatasetConfig, {"source": source, **row}, f"datasets.{name}.", errors)
    assert isinstance(built, DatasetConfig)
    return built


def _leaf(kind: type, key: str, value: Any) -> Any:
    """One value as its field's type, by OmegaConf's rules."""
    if isinstance(value, bool) and typing.get_type_hints(kind)[key] in (int, float, int | None, float | None):
        raise ValueError(key)
    node = OmegaConf.structured(kind)
    OmegaConf.update(node, key, value, merge=False)
    found = node[key]
    return OmegaConf.to_object(found) if OmegaConf.is_config(found) else found


def _meant(key: str, at: str, known: set[str], value: Any) -> str:
    if not at and key == "config" and isinstance(value, Mapping):
        return f" (did you mean `{'`, `'.join(value)}`, without `config.`?)"
    if at == "loss." and key in ("lambda", "OR_scale", "orpo_alpha", "orpo_beta"):
        return " (ORPO's weight is `loss.or_weight`; this loss is not ORPO)"
    if key in ALIASES and key not in known:
        return f" (here it is {ALIASES[key]})"
    if at:
        return nearest(key, known)
    nested = {f"model.{f.name}" for f in fields(ModelConfig)}
    return nearest(key, known) or nearest(key, nested)


def _expected(hint: Any, value: str) -> str:
    """A type in words, with the nearest name where it is a choice."""
    if isinstance(hint, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        return f"{_expected(parts[0], value)} or null"
    if isinstance(hint, type) and issubclass(hint, Enum):
        names = [member.name for member in hint]
        return f"one of {', '.join(names)}{nearest(value, names)}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return words.get(hint, "a mapping of keys to values")
