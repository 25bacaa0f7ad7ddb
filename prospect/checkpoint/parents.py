"""The models that a run was made from, known by their weights' files, so that one that has changed since is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prospect.checkpoint.commit import MANIFEST, file_hash
from prospect.checkpoint.manifest import Parent
from prospect.checkpoint.origin import Origin, resolve
from prospect.config.schema import Config
from prospect.errors import UserError

_WEIGHTS = (".safetensors", ".bin", ".pt")


def files_hash(place: Path) -> str:
    """Hash of a model's weights: of a file, or of a folder's files, whose own hashes its manifest may hold."""
    if place.is_file():
        return file_hash(place)
    if (place / MANIFEST).is_file():
        listed = json.loads((place / MANIFEST).read_text())["files"]
        hashes = {name: entry["sha256"] for name, entry in listed.items() if name.endswith(_WEIGHTS)}
    else:
        hashes = {file.name: file_hash(file) for file in place.iterdir() if file.name.endswith(_WEIGHTS)}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def parents_of(config: Config, start: Origin | None, digest: str) -> list[Parent]:
    """The model that training starts from, with the ``digest`` of its weights, and the one whose scores it learns."""
    if start is None:
        parents = [Parent(str(config.model.name_or_path or "random weights"), digest)]
    else:
        parents = [Parent(str(start.path), digest, files_hash(start.path))]
    scorer = asdict(config.loss).get("reward_model")
    if scorer is not None:
        place = resolve(scorer, Path(config.cache_dir)).path
        parents.append(Parent(str(place), files_hash(place), files_hash(place)))
    return parents


def check_parents(run: Path, parents: Iterable[Mapping[str, Any]]) -> None:
    """Compare the parents that a run's manifest names with what lies there now.

    Raises:
        UserError: one has other weights than when the run started.
    """
    for parent in parents:
        place = Path(parent["path"])
        if parent.get("files") is not None and place.exists() and files_hash(place) != parent["files"]:
            raise UserError(
                f"exp_name: {run} was started from {place}, whose weights have changed since; "
                "choose another exp_name, or delete the run to make it anew"
            )
