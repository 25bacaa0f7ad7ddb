"""The command line, looked at before Hydra sees it.

Overrides of keys are handed on as ``++key=value``, whatever form the user chose: Hydra then accepts any, and our own
check of the composed configuration is the one place where a wrong key, type or value is met.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from prospect.config.choices import GROUPS, choices
from prospect.errors import UserError, nearest


@dataclass(frozen=True, slots=True)
class Command:
    """What was asked for. ``groups``: chosen members by group; ``overrides``: all of it, in the form Hydra gets."""

    overrides: tuple[str, ...]
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    multirun: bool = False
    help: bool = False
    show: bool = False  # --cfg: print the configuration and stop


_FLAGS = {
    "-m": "multirun",
    "--multirun": "multirun",
    "-h": "help",
    "--help": "help",
    "-c": "show",
    "--cfg": "show",
}


def parse(argv: list[str]) -> Command:
    """Read the words of a command line.

    Raises:
        UserError: a word that is no ``key=value``, or a group member that does not exist; names the nearest.
    """
    flags: dict[str, bool] = {}
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word in _FLAGS:
            flags[_FLAGS[word]] = True
            if _FLAGS[word] == "show":
                next(rest, None)  # Hydra's `job`
        elif word.startswith("-"):
            raise UserError(f"{word}: no such flag; there are --help, --multirun (-m), --cfg job, and key=value")
        else:
            words.append(word)
    groups: dict[str, tuple[str, ...]] = {}
    overrides = []
    for word in words:
        override = _read(word)
        key = override.key_or_group
        if key in GROUPS:
            members = _members(override)
            for member in members:
                if member not in choices(key):
                    raise UserError(f"{key}={member}: there is no config/{key}/{member}.yaml{_hint(key, member)}")
            groups[key] = members
            overrides.append(word.lstrip("+"))
        elif key.startswith("hydra"):
            overrides.append(word)
        else:
            overrides.append(f"++{word.lstrip('+')}")
    return Command(tuple(overrides), groups, **flags)


def swept(command: Command) -> bool:
    """Whether the command stands for several runs."""
    return command.multirun or "sweep" in command.groups


def _read(word: str) -> Override:
    if "=" not in word:
        guess = f"; did you mean {word}=…" if word.lstrip("+~") else ""
        raise UserError(f"{word}: not understood, settings are written key=value{guess}")
    if word.startswith("~"):
        raise UserError(f"{word}: keys cannot be deleted; set {word.lstrip('~').split('=')[0]}=null")
    if word.lstrip("+").startswith("="):
        raise UserError(f"{word}: a key is missing before `=`")
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        key, _, value = word.partition("=")
        first = str(error).splitlines()[0]
        raise UserError(
            f"{key}: the value {value!r} cannot be read ({first}); quote it: '{key}=\"{value}\"'"
        ) from error


def _members(override: Override) -> tuple[str, ...]:
    """All members that an override of a group names: one, a list, or a sweep of either."""
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return tuple(str(item).strip("[]") for value in flat for item in str(value).strip("[]").split(",") if item)


def _hint(group: str, member: str) -> str:
    return nearest(member, choices(group)) or f"; there are {', '.join(choices(group))}"
