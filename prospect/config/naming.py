"""A run's default name: its choices, and every setting that changes the result. The same command, the same name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from prospect.config.saved import FREE

_LONGEST = 100


def default_name(config: Mapping[str, Any], base: Mapping[str, Any], default_datasets: list[str]) -> str:
    """``<loss>_<model>`` and what distinguishes the settings from ``base``, the same choices without overrides."""
    parts = [str((config.get(group) or {}).get("name") or group) for group in ("loss", "model")]
    datasets = list(config.get("datasets") or {})
    if datasets != default_datasets:
        parts.append("+".join(sorted(datasets)))
    flat, plain = flatten(config), flatten(base)
    for key in sorted(flat):
        if flat[key] != plain.get(key) and key not in FREE and key.split(".")[0] not in FREE:
            parts.append(f"{key}-{flat[key]}")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(parts)).strip("-.")
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def flatten(values: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{at}{key}.")
        else:
            flat[f"{at}{key}"] = value
    return flat
