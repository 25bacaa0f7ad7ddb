"""Where a policy starts: what ``model.load_from`` and ``saved_policy`` may name, resolved to files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prospect.errors import UserError, nearest


@dataclass(frozen=True, slots=True)
class Origin:
    """A Hugging Face folder, or the state dict of an old run (``{'step_idx', 'state', 'metrics'}``)."""

    path: Path
    is_state_dict: bool
    is_adapter: bool = False  # the folder holds an adapter only; its base is another model


def resolve(name: str, cache_dir: Path, key: str = "model.load_from") -> Origin:
    """Find the model that ``name`` means: a path, a path below ``cache_dir``, or the ``exp_name`` of a run.

    ``…/LATEST/policy.pt`` means the folder where no such file is. ``key``: where the user has named it.

    Raises:
        UserError: there is no such thing, or it has no weights.
    """
    given = Path(name).expanduser()
    places = [given] if given.is_absolute() else [cache_dir / given, given]
    for place in places:
        if place.is_file():
            return Origin(place, is_state_dict=True)
        folder = place.parent if place.name == "policy.pt" else place
        if (folder / "LATEST").is_dir():
            folder = folder / "LATEST"
        if folder.is_dir():
            return origin_at(folder, key)
    where = " or ".join(str(p) for p in dict.fromkeys(places))
    raise UserError(f"{key}: there is no {where}{nearest(name.split('/')[0], _runs(cache_dir))}")


def origin_at(folder: Path, key: str = "model.load_from") -> Origin:
    """What a folder holds.

    Raises:
        UserError: no model.
    """
    whole = any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
    if (folder / "adapter_config.json").is_file() and not whole:
        return Origin(folder, is_state_dict=False, is_adapter=True)
    if (folder / "policy.pt").is_file() and not (folder / "config.json").is_file():
        return Origin(folder / "policy.pt", is_state_dict=True)
    if not (folder / "config.json").is_file():
        raise UserError(f"{key}: {folder} holds no model (no config.json in it)")
    return Origin(folder, is_state_dict=False)


def _runs(cache_dir: Path) -> Iterable[str]:
    return [p.name for p in cache_dir.iterdir() if (p / "config.yaml").is_file()] if cache_dir.is_dir() else []
