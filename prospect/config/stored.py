"""A run's own config.yaml: written whole, read as data. No interpolation in it is resolved, no tag constructs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prospect.checkpoint.commit import write_text
from prospect.config import stranger
from prospect.config.convert import flatten
from prospect.config.environment import MARK, written
from prospect.config.identity import deciding
from prospect.config.schema import Config
from prospect.config.typed import Losses, checked
from prospect.errors import UserError, nearest


def save_config(config: Config, file: Path) -> None:
    """Write every key with its value."""
    text = as_yaml(config)
    write_text(file, text)
    stranger.remember(text)


def as_yaml(config: Config) -> str:
    """The text of a config.yaml."""
    return OmegaConf.to_yaml(OmegaConf.create(_plain(written(config))))


def load_run_config(path: str, overrides: Sequence[str], losses: Losses, to_follow: bool = False) -> Config:
    """The configuration of a finished or begun run, with keys set anew for this call.

    ``path`` is the run folder or its config.yaml; the run is used where it lies now, wherever it was made.
    ``to_follow``: it decides what is done, read and written, and may be a stranger's.

    Raises:
        UserError: one line for each thing that is missing or wrong.
    """
    file = _file(Path(path).expanduser())
    values = _read(file)
    folder = file.parent.resolve()
    values["exp_name"] = values.get("exp_name") or folder.name
    if folder.name == values["exp_name"] and values.get("local_run_dir") is None:
        values["cache_dir"] = str(folder.parent)  # where model.load_from looks
    values["local_run_dir"] = str(folder)
    typed = _set(values, overrides)
    stranger.without_trust(values, typed)
    if to_follow:
        stranger.confine(values, typed, file, own=stranger.is_own(file.read_text(encoding="utf-8")))
    return checked(values, typed, losses)


def check_given(config: Config, source: str) -> None:
    """Refuse a stored configuration whose result hangs on a value from the environment, until it is given again.

    Raises:
        UserError: names the keys.
    """
    missing = [(key, text) for key, text in deciding(asdict(config)).items() if MARK in str(text)]
    if missing:
        raise UserError(
            "\n".join(
                f"{source}: {key} came from {text}, which is not kept: add ++{key}=<value>" for key, text in missing
            )
        )


def _file(path: Path) -> Path:
    file = path / "config.yaml" if path.is_dir() else path
    if file.is_file():
        return file
    folder = path.parent if path.name == "config.yaml" else path
    there = [found.parent.name for found in folder.parent.glob("*/config.yaml")] if folder.parent.is_dir() else []
    raise UserError(f"--config-path: {file} is not there{nearest(folder.name, there)}")


def _read(file: Path) -> dict[str, Any]:
    try:
        values = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a configuration ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: not a configuration (keys and values are expected)")
    return {str(key): value for key, value in values.items()}


def _set(values: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Put overrides into place; the keys that they set."""
    from prospect.config.compose import CONFIG, parse

    typed = []
    for word in overrides:
        override = parse(word)
        *parents, last = override.key_or_group.split(".")
        if override.is_sweep_override():
            raise UserError(f"{word}: one value at a time here")
        if not parents and last in ("loss", "model", "datasets", "peft"):
            raise UserError(f"{word}: a run keeps its {last}; single keys can be set: ++{last}.<key>=<value>")
        if parents[:1] == ["datasets"] and len(parents) == 2:
            _add_dataset(values, parents[1], CONFIG / "datasets" / f"{parents[1]}.yaml")
        node = values
        for parent in parents:
            inner = node.setdefault(parent, {})
            if not isinstance(inner, dict):
                inner = node[parent] = {}
            node = inner
        node[last] = override.value()
        typed += list(flatten({override.key_or_group: node[last]}))
    return typed


def _add_dataset(values: dict[str, Any], name: str, file: Path) -> None:
    """A data set that the run did not train on comes with what its file says."""
    chosen = values.setdefault("datasets", {})
    if isinstance(chosen, dict) and name not in chosen and file.is_file():
        chosen |= _read(file)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value
