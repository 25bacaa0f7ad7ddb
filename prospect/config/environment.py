"""Values that a command takes from the environment, by ``${oc.env:NAME}``: a run uses them, and no file has them.

They may be credentials. What is written (config.yaml, samples, trackers) has the text that was typed; a stored text is
never looked up again, as a stranger's configuration could then read any variable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from prospect.config.convert import flatten
from prospect.config.schema import Config

MARK = "${oc.env:"


def taken(node: DictConfig) -> dict[str, Any]:
    """By dotted key: values that depend on environment variables, with ``${oc.env:NAME}`` in place of these."""
    if MARK not in str(OmegaConf.to_container(node, resolve=False)):
        return {}
    found = flatten(_resolved(node))
    with _named_not_looked_up():
        texts = flatten(_resolved(node))
    return {key: text for key, text in texts.items() if found.get(key) != text}


def written(config: Config) -> dict[str, Any]:
    """A configuration as it is written down."""
    values = asdict(config)
    return put({key: value for key, value in values.items() if key != "environment"}, config.environment)


def put(values: Mapping[str, Any], texts: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with others in some of their places, by dotted key."""
    found = dict(values)
    for key, text in texts.items():
        first, _, rest = key.partition(".")
        found[first] = put(found[first], {rest: text}) if rest else text
    return found


def _resolved(node: DictConfig) -> Mapping[str, Any]:
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


@contextmanager
def _named_not_looked_up() -> Iterator[None]:
    OmegaConf.register_new_resolver("oc.env", lambda *words: f"{MARK}{','.join(map(str, words))}}}", replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
