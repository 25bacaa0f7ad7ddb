"""A stored configuration may be a stranger's: what of it an evaluation follows.

A run that is handed on is a folder with a config.yaml. It says where data and models lie, and where answers go: on the
machine of whoever wrote it. Here such places count inside the run's folder and cache_dir, and elsewhere only where the
command line names them, or where this user's own command has written this very file: its hash is kept then. What is
done at all, and whether code that comes with a model may run, is said on the command line alone.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prospect.config.schema import Config
from prospect.errors import UserError

TRUST = "model.trust_remote_code"
_OF_THE_COMMAND = ("mode", "out", "repo", "private")  # as by default, unless typed
_MODELS = ("name_or_path", "tokenizer_name_or_path", "load_from")
_BELOW_CACHE = ("load_from", "reward_model", "saved_policy")  # names that are looked for in cache_dir first
_TEMPLATES = ("auto", "archangel")


def remember(text: str) -> None:
    """Note that this user's command has written a configuration; without a place for that, nothing."""
    with contextlib.suppress(OSError, RuntimeError):
        _note(text).parent.mkdir(parents=True, exist_ok=True)
        _note(text).touch()


def is_own(text: str) -> bool:
    """Whether this user's command has written this configuration."""
    try:
        return _note(text).is_file()
    except (OSError, RuntimeError):
        return False


def _note(text: str) -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "prospect" / "configurations" / hashlib.sha256(text.encode()).hexdigest()


def without_trust(values: dict[str, Any], typed: Collection[str]) -> None:
    """Let a stored configuration not say that code may run."""
    if isinstance(values.get("model"), dict) and TRUST not in typed:
        values["model"]["trust_remote_code"] = False


def confine(values: dict[str, Any], typed: Collection[str], file: Path, own: bool) -> None:
    """Change the values of ``file`` such that nothing is done, read or written because it says so.

    Raises:
        UserError: it names something that is there, but in another place; one line for each.
    """
    folder = file.parent.resolve()
    _keep_template(values, typed, folder)
    if own:
        return
    for key in _OF_THE_COMMAND:
        if key not in typed:
            values[key] = getattr(Config(), key)
    if "cache_dir" not in typed:
        values["cache_dir"] = str(folder.parent)
    bounds = _Bounds(folder, Path(str(values["cache_dir"])).expanduser().resolve())
    if "samples_dir" not in typed and not bounds.hold(str(values.get("samples_dir"))):
        values["samples_dir"] = _samples(str(values.get("samples_dir")), file)
    problems = [
        f"{key}: {_shown(place)} stands in {file} and leads out of {folder} and {bounds.cache_dir}; if it is meant: "
        f"++{key}={_shown(str(Path(place).expanduser()))}"
        for key, place in _places(values, bounds)
        if key not in typed
    ]
    cache = bounds.cache_dir / ".cache"
    if "cache_dir" not in typed and not bounds.hold(str(cache)):
        problems.append(f"cache_dir: {cache} is a link to {cache.resolve()}; name the folder: ++cache_dir=<folder>")
    if problems:
        raise UserError("\n".join(problems))


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Where a stored configuration's places may lie."""

    folder: Path
    cache_dir: Path

    def hold(self, place: str) -> bool:
        """Whether a path, with its links followed, stays inside."""
        there = Path(place).expanduser().resolve()
        return any(there.is_relative_to(root) for root in (self.folder, self.cache_dir))


def _keep_template(values: dict[str, Any], typed: Collection[str], folder: Path) -> None:
    """A template file is read as it was in training, from what the run has exported."""
    exported = folder / "LATEST" / "chat_template.jinja"
    if "chat_template" not in typed and values.get("chat_template") not in _TEMPLATES and exported.is_file():
        values["chat_template"] = str(exported)


def _samples(stored: str, file: Path) -> str:
    default = Config().samples_dir
    if stored != default:
        print(f"samples_dir: {_shown(stored)} of {file} is not followed; answers go to {default}/", file=sys.stderr)
    return default


def _shown(text: str) -> str:
    """Text from elsewhere on one line, without codes for the terminal."""
    return text if text.isprintable() else repr(text)


def _places(values: Mapping[str, Any], bounds: _Bounds) -> Iterator[tuple[str, str]]:
    """Keys with a file or folder that is there and lies outside."""
    model, datasets = _mapping(values.get("model")), _mapping(values.get("datasets"))
    named = [(f"model.{key}", model.get(key)) for key in _MODELS]
    named += [("saved_policy", values.get("saved_policy")), ("chat_template", values.get("chat_template"))]
    named += list(_reward_models("loss", _mapping(values.get("loss"))))
    for name, dataset in datasets.items():
        for key in ("path", "test_path"):
            given = _mapping(dataset).get(key)
            named += [(f"datasets.{name}.{key}", one) for one in (given if isinstance(given, list) else [given])]
    for key, place in named:
        if isinstance(place, str) and any(not bounds.hold(one) for one in _found(key, place, bounds)):
            yield key, place


def _found(key: str, place: str, bounds: _Bounds) -> list[str]:
    """What a key's value means here: nothing where no such thing is, as for the name of something on the hub."""
    if key.rpartition(".")[2] in _BELOW_CACHE:
        inside = [str(root / place) for root in (bounds.folder, bounds.cache_dir) if (root / place).exists()]
        if inside:
            return inside
    given = Path(place).expanduser()
    if given.exists() or not glob.has_magic(place):
        return [str(given)] if given.exists() else []
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), given.parts))
    return glob.glob(str(given), recursive=True) if bounds.hold(str(fixed)) else [str(fixed)]


def _reward_models(prefix: str, loss: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Those of a loss, and of the parts of a mix."""
    for key, value in loss.items():
        if key == "reward_model":
            yield f"{prefix}.{key}", value
        elif isinstance(value, Mapping):
            yield from _reward_models(f"{prefix}.{key}", value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
