"""Plain values, as YAML and the command line give them, to the dataclasses of the schema: by type, nothing guessed.

Every misfit becomes one line in a list, so that a user sees all of them at once. Text is taken as it is: what looks
like an interpolation or a tag in a stored file is never resolved.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from prospect.config import names
from prospect.errors import nearest

_Node = TypeVar("_Node")
_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class Misfit(ValueError):
    """What is wrong with one value."""


def convert(
    kind: type[_Node], values: Mapping[str, Any], prefix: str, problems: list[str], there: Collection[str] = ()
) -> _Node:
    """An instance of the dataclass ``kind``; what does not fit is left at its default and described in ``problems``.

    ``there``: keys that exist elsewhere, for the advice on unknown ones.
    """
    hints = get_type_hints(kind)
    known = {f.name: hints[f.name] for f in fields(kind) if f.init}  # type: ignore[arg-type]  # dataclasses only
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in known:
            here = {f"{prefix}{sibling}" for sibling in known}
            problems += [names.unknown_key(path, here.union(there)) for path in flatten({key: value})]
            continue
        try:
            found[name] = _value(known[name], value, key, problems)
        except Misfit as misfit:
            problems.append(f"{key}: {misfit}")
    return kind(**found)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _value(kind: Any, value: Any, key: str, problems: list[str]) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        return _one_of(get_args(kind), value, key, problems)
    if kind is Any:
        return value
    if is_dataclass(kind) and isinstance(kind, type):
        return convert(kind, _mapping(value), f"{key}.", problems)
    if get_origin(kind) is dict:
        of = get_args(kind)[1]
        return {str(name): _value(of, item, f"{key}.{name}", problems) for name, item in _mapping(value).items()}
    if get_origin(kind) is list:
        if not isinstance(value, list):
            raise Misfit(f"expected a list [...], not {_shown(value)}")
        return [_value(get_args(kind)[0], item, f"{key}[{index}]", problems) for index, item in enumerate(value)]
    if value is None:
        raise Misfit(f"may not be null; expected {_expected(kind)}")
    if issubclass(kind, Enum):
        return _member(kind, value)
    return _scalar(kind, value)


def _one_of(parts: tuple[Any, ...], value: Any, key: str, problems: list[str]) -> Any:
    """A union: one type or a list of it, beside it null or words with a meaning of their own (auto)."""
    words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    if value in words or (value is None and types.NoneType in parts):
        return value
    kinds = [part for part in parts if part is not types.NoneType and get_origin(part) is not Literal]
    lists = [part for part in kinds if get_origin(part) is list]
    if lists and isinstance(value, list):
        return _value(lists[0], value, key, problems)
    (kind,) = (part for part in kinds if part not in lists)
    if lists and (isinstance(value, bool) or not isinstance(value, str | int | float)):
        raise Misfit(f"expected {_expected(kind)} or a list [...], not {_shown(value)}")
    if words and isinstance(value, str):
        raise Misfit(f"expected {_expected(kind)} or {', '.join(words)}, not {_shown(value)}")
    return _value(kind, value, key, problems)


def _scalar(kind: type, value: Any) -> Any:
    """A number may be written with a point or exponent where it is whole (1e3), and stand where text is meant."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    if kind is int and number and float(value).is_integer():
        return int(value)
    if kind is str and number:
        return str(value)
    if type(value) is not kind:
        raise Misfit(f"expected {_expected(kind)}, not {_shown(value)}")
    return value


def _member(kind: type[Enum], value: Any) -> Enum:
    members = {member.value: member for member in kind}
    if value in members:
        return members[value]
    raise Misfit(f"expected {_expected(kind)}, not {_shown(value)}{nearest(str(value), members)}")


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Misfit(f"expected keys with values, not {_shown(value)}")
    return value


def _expected(kind: type) -> str:
    if issubclass(kind, Enum):
        return "one of " + ", ".join(str(member.value) for member in kind)
    return _EXPECTED[kind]


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
