"""What an adapter stands on: the model whose weights it changes, so that it never meets another one.

Beside peft's files an adapter's folder holds base.json. A folder is known by the hashes of its files; it may itself be
an adapter (SFT, then DPO on top of it), and so on down to a whole model.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from prospect.checkpoint.commit import MANIFEST, file_hash
from prospect.checkpoint.origin import Origin, origin_at
from prospect.config.schema import Quantization
from prospect.errors import UserError

FILE = "base.json"


@dataclass(frozen=True, slots=True)
class Base:
    """A model under an adapter, as the adapter was trained on it."""

    name: str  # hub id, or absolute path of a folder
    revision: str | None = None
    fingerprint: str | None = None  # of a folder's files
    in_cache_dir: str | None = None  # the folder's place below cache_dir, for runs that are moved together
    dtype: str = "float32"  # of the weights under the adapter
    quantization: Quantization | None = None
    double_quant: bool = True

    @classmethod
    def of_folder(cls, folder: Path, cache_dir: Path) -> Base:
        """A folder as it is now."""
        place, below = folder.resolve(), None
        if place.is_relative_to(cache_dir.resolve()):
            below = str(place.relative_to(cache_dir.resolve()))
        return cls(str(place), fingerprint=fingerprint(place), in_cache_dir=below)

    def write(self, folder: Path) -> None:
        """Put it beside the adapter's files."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1))


def base_of(adapter: Path) -> Base:
    """The base that an adapter's folder names; one that was trained elsewhere has only peft's own file.

    Raises:
        UserError: neither file can be read, or they name no base.
    """
    try:
        if (adapter / FILE).is_file():
            found = Base(**json.loads((adapter / FILE).read_text()))
            return replace(found, quantization=found.quantization and Quantization(found.quantization))
        theirs = json.loads((adapter / "adapter_config.json").read_text())
        return Base(str(theirs["base_model_name_or_path"] or ""), theirs.get("revision"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"model.load_from: {adapter} does not say which model its adapter belongs to") from error


def located(base: Base, adapter: Path, cache_dir: Path) -> Origin | None:
    """Where the base lies now; None for one on the hub.

    Raises:
        UserError: its folder is gone, or holds other files than when the adapter was trained.
    """
    places = [Path(base.name)] if base.name else []
    places += [cache_dir / base.in_cache_dir] if base.in_cache_dir else []
    there = [place for place in places if place.is_dir()]
    if not there and (base.fingerprint is not None or os.path.isabs(base.name) or not base.name):
        where = base.name or "an unnamed model"
        raise UserError(f"model.load_from: {adapter} is an adapter on {where}, which is not there")
    if not there:
        return None
    for place in there:
        if base.fingerprint in (None, fingerprint(place)):
            return origin_at(place)
    raise UserError(
        f"model.load_from: {adapter} is an adapter on {there[0]}, which has changed since; "
        "with other weights under it the adapter would be another model"
    )


def fingerprint(folder: Path) -> str:
    """Hash of a model folder: of its manifest, which holds its files' hashes, or of its weights themselves."""
    if (folder / MANIFEST).is_file():
        return file_hash(folder / MANIFEST)
    weights = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt"))
    return hashlib.sha256("".join(file_hash(file) for file in weights).encode()).hexdigest()
