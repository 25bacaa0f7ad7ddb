"""A run's config.yaml: data, never code. Written, read back with overrides, and compared with a new command's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prospect.config.schema import Config
from prospect.config.typed import ConfigErrors, Losses, typed
from prospect.errors import UserError

# Keys (or first parts of keys) that leave a run's result as it is.
FREE = frozenset(
    {
        *("exp_name", "cache_dir", "local_run_dir", "mode", "debug", "split", "out"),
        *("minimum_log_interval_secs", "intermediate_checkpoints", "keep_checkpoints", "save_every"),
        *("n_samples", "samples_dir", "samples_per_prompt", "saved_policy", "temperature", "top_p", "max_new_tokens"),
        *("wandb", "tensorboard", "parallel", "model.eval_batch_size", "model.v_head_max_grad_norm"),
    }
)


def save_config(config: Config, file: Path) -> None:
    """Write a configuration; nothing in it refers to anything outside."""
    from prospect.checkpoint.commit import write_text

    write_text(file, OmegaConf.to_yaml(OmegaConf.create(asdict(config)), resolve=False))


def load_run_config(path: str, overrides: list[str], losses: Losses) -> Config:
    """The configuration of a run, from its folder or its config.yaml, with ``key=value`` overrides.

    Raises:
        UserError: there is no such file, it refers to the environment, or it does not fit.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        file = file / "config.yaml"
    if not file.is_file():
        raise UserError(f"--config-path: there is no {file}; give a run folder or its config.yaml")
    try:
        stored = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except Exception as error:
        raise UserError(f"{file}: not a configuration ({str(error).splitlines()[0]})") from error
    if not isinstance(stored, dict):
        raise UserError(f"{file}: not a configuration")
    if interpolated := [key for key, value in _flat(stored).items() if isinstance(value, str) and "${" in value]:
        raise UserError(f"{file}: {interpolated[0]}: a saved configuration must not refer to anything (${{…}})")
    merged = OmegaConf.create(stored)
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        try:
            OmegaConf.update(merged, key, OmegaConf.create(f"value: {value}" if value else "value: ''").value)
        except OmegaConfBaseException as error:
            raise UserError(f"{key}: `{value}` cannot be set ({str(error).splitlines()[0]})") from error
        except Exception as error:  # YAML's own errors
            raise UserError(f"{key}: the value `{value}` cannot be read") from error
    plain = OmegaConf.to_container(merged, resolve=False)
    assert isinstance(plain, dict)
    try:
        return typed({str(key): value for key, value in plain.items()}, losses)
    except ConfigErrors as error:
        raise ConfigErrors([f"{file}: {line}" if not overrides else line for line in error.lines]) from error


def first_difference(stored: Config, wanted: Config) -> str | None:
    """The first key that changes the result and differs, with both values; None if none does."""
    ours, theirs = _flat(asdict(stored)), _flat(asdict(wanted))
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        if key in FREE or key.split(".")[0] in FREE:
            continue
        if ours.get(key) != theirs.get(key):
            return f"{key} is {ours.get(key)} there and {theirs.get(key)} now"
    return None


def _flat(values: Mapping[Any, Any]) -> dict[str, Any]:
    from prospect.config.naming import flatten

    return flatten(values)
