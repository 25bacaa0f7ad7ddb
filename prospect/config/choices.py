"""The groups of config/ and the files that can be chosen in each."""

from __future__ import annotations

from pathlib import Path

CONFIG_DIR = Path(__file__).resolve().parents[2] / "config"
GROUPS = ("loss", "model", "datasets", "logger", "experiment", "sweep")


def choices(group: str) -> list[str]:
    """Names that a group can take, in order; files that begin with an underscore are parts of others."""
    return sorted(p.stem for p in (CONFIG_DIR / group).glob("*.yaml") if not p.stem.startswith("_"))


def described(group: str) -> list[tuple[str, str]]:
    """(name, first comment line) of each choice of a group."""
    found = []
    for name in choices(group):
        lines = (CONFIG_DIR / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        comments = [x.lstrip("# ") for x in lines if x.startswith("#") and "@package" not in x]
        found.append((name, comments[0] if comments else ""))
    return found
