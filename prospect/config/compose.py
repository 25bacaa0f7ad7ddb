"""Hydra's composition of config/, and what becomes of it: a checked, named, typed configuration."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prospect.config.argv import Command
from prospect.config.choices import CONFIG_DIR, GROUPS
from prospect.config.naming import default_name
from prospect.config.schema import Config
from prospect.config.typed import Losses, typed
from prospect.errors import UserError


def configuration(overrides: Sequence[str], losses: Losses) -> Config:
    """The configuration that one run's overrides mean.

    Raises:
        UserError: anything in it that is wrong; ConfigErrors lists several.
    """
    return finished(_composed(overrides), overrides, losses)


def finished(composed: DictConfig, overrides: Sequence[str], losses: Losses) -> Config:
    """Type, check and name a composed configuration."""
    try:
        raw = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"configuration: {str(error).splitlines()[0]}") from error
    assert isinstance(raw, dict)
    plain = {str(key): value for key, value in raw.items()}
    config = typed(plain, losses)
    if config.exp_name is None:
        config.exp_name = _default_name(plain, overrides)
    return config


def members(command: Command) -> list[list[str]]:
    """The overrides of each run that a command stands for, by the rules of Hydra's basic sweeper."""
    composed = _composed(_single(command.overrides), with_hydra=True)
    params = OmegaConf.to_container(composed.hydra.sweeper.get("params") or OmegaConf.create({}), resolve=True)
    assert isinstance(params, dict)
    given = {word.lstrip("+").split("=")[0] for word in command.overrides}
    texts = {str(key): str(value) for key, value in params.items()}
    grid = [f"{key}={value}" for key, value in texts.items() if key.lstrip("+") not in given]
    parser = OverridesParser.create()
    axes: list[list[str]] = []
    for word in (*grid, *command.overrides):
        override = parser.parse_override(word)
        if override.is_sweep_override():
            key = word.split("=")[0]
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            axes.append([word])
    return [list(row) for row in product(*axes)]


def _composed(overrides: Sequence[str], with_hydra: bool = False) -> DictConfig:
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return compose("config", overrides=list(overrides), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error
        first = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise UserError(f"configuration: {first}") from error


def _single(overrides: Sequence[str]) -> list[str]:
    """The first member of a sweep: enough to read the sweep's own settings."""
    parser = OverridesParser.create()
    words = []
    for word in overrides:
        override = parser.parse_override(word)
        swept = override.is_sweep_override()
        words.append(f"{word.split('=')[0]}={next(iter(override.sweep_string_iterator()))}" if swept else word)
    return words


def _default_name(plain: dict[str, Any], overrides: Sequence[str]) -> str:
    groups = [word for word in overrides if word.split("=")[0] in GROUPS]
    base = OmegaConf.to_container(_composed([word for word in groups if not word.startswith("experiment=")]))
    defaults = OmegaConf.to_container(_composed([]))
    assert isinstance(base, dict)
    assert isinstance(defaults, dict)
    return default_name(plain, {str(k): v for k, v in base.items()}, list(defaults["datasets"]))
