"""A chain: runs one after another, each of which may start from an earlier one (config/chain/<name>.yaml).

    stages: [pt, sft]                             those that run, unless stages=[…] is typed
    pt: loss=pt datasets=[files]                  a stage's words, as they would be typed
    sft: loss=sft model.load_from={pt}            {pt}: the name of that stage's run

Words that a user types go to every stage, after its own; sft.lr=1e-5 goes to that stage alone.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from prospect.errors import UserError, nearest

_FOLDER = Path(__file__).resolve().parents[2] / "config" / "chain"


def chain_in(argv: Sequence[str]) -> str | None:
    """The chain that a command names, if it names one.

    Raises:
        UserError: there is no such chain.
    """
    name = _typed(argv, "chain")
    known = sorted(file.stem for file in _FOLDER.glob("*.yaml"))
    if name not in (None, "null", *known):
        raise UserError(f"chain: there is no {name}{nearest(str(name), known) or f'; there are {_listed(known)}'}")
    return None if name == "null" else name


def stages(chain: str, argv: Sequence[str]) -> list[list[str]]:
    """The words of each stage's run, in their order.

    Raises:
        UserError: a stage that the chain has not.
    """
    if {"-m", "--multirun"}.intersection(argv):
        raise UserError("-m: a chain is no sweep; give the command once for each value")
    known = _read(chain)
    usual, asked = known.pop("stages"), _typed(argv, "stages")
    wanted = usual if asked is None else [word.strip() for word in asked.strip("[]").split(",")]
    for stage in wanted:
        if stage not in known:
            raise UserError(f"stages: {chain} has no {stage}{nearest(stage, known) or f'; it has {_listed(known)}'}")
    common = [word for word in argv if _key(word).split(".")[0] not in (*known, "chain", "stages", "exp_name")]
    base = _typed(argv, "exp_name") or "_".join(filter(None, (chain, _typed(argv, "model"))))
    names = {stage: f"{base}_{stage}" for stage in known}
    found = []
    for stage in wanted:
        own = shlex.split(known[stage])
        for other, name in names.items():
            own = [word.replace(f"{{{other}}}", name) for word in own]
        alone = [word.lstrip("+").removeprefix(f"{stage}.") for word in argv if _key(word).startswith(f"{stage}.")]
        found.append([*own, *common, *alone, f"exp_name={names[stage]}"])
    return found


def _read(chain: str) -> dict[str, Any]:
    given = yaml.safe_load((_FOLDER / f"{chain}.yaml").read_text(encoding="utf-8"))
    assert isinstance(given, dict)
    return given


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _key(word: str) -> str:
    return word.lstrip("+").partition("=")[0]


def _typed(argv: Sequence[str], key: str) -> str | None:
    """The last value of a key."""
    return next((word.partition("=")[2] for word in reversed(argv) if _key(word) == key), None)
