"""What a judge is asked: a YAML file, filled in safely.

The texts to be judged are data. They are put in once, by one pass over the template, so braces in them mean nothing;
and they stand between lines that begin with a mark drawn from the ledger's secret salt and the texts themselves, which
nobody who wrote an answer can have guessed. The same texts get the same mark, so a request keeps its key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from prospect.errors import UserError, nearest

_FIELD = re.compile(r"\{(\w+)\}")
_FIELDS = {"mark", "conversation", "label_1", "label_2", "first", "second"}
_NEEDED = {"conversation", "first", "second"}
_SHIPPED = Path(__file__).parent / "prompts"
_EMPTY = "[empty response]"


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """A template with its name, version, labels and the number of tokens that an answer may take."""

    name: str
    version: int
    system: str
    user: str
    labels: str
    max_tokens: int

    @property
    def sha256(self) -> str:
        """Of everything in it: another template is another experiment."""
        parts = [self.name, self.version, self.system, self.user, self.labels, self.max_tokens]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def messages(self, salt: bytes, conversation: str, first: str, second: str) -> list[dict[str, str]]:
        """The chat messages that ask which of two answers is better."""
        texts = json.dumps([conversation, first, second]).encode()
        fields = {
            "mark": f"=== {hmac.digest(salt, texts, 'sha256').hex()[:16]}",
            "conversation": conversation.strip(),
            "label_1": self.labels[0],
            "label_2": self.labels[1],
            "first": first.strip() or _EMPTY,
            "second": second.strip() or _EMPTY,
        }
        roles = (("system", self.system), ("user", self.user))
        return [{"role": role, "content": _fill(text, fields)} for role, text in roles if text]


def load_prompt(name: str, labels: str | None = None) -> JudgePrompt:
    """A shipped prompt by name, or one from a YAML file; ``labels`` replaces its own.

    Raises:
        UserError: there is no such prompt, or it lacks a key or a field.
    """
    file = Path(name) if name.endswith((".yaml", ".yml")) else _SHIPPED / f"{name}.yaml"
    if not file.is_file():
        known = sorted(path.stem for path in _SHIPPED.glob("*.yaml"))
        raise UserError(
            f"--prompt {name}: not found{nearest(name, known)}; shipped: {', '.join(known)}, or a .yaml file"
        )
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    prompt = _checked(file, given)
    return replace(prompt, labels=labels) if labels else prompt


def _checked(file: Path, given: Any) -> JudgePrompt:
    wanted = {"name": str, "version": int, "system": str, "user": str, "labels": str, "max_tokens": int}
    if not isinstance(given, dict):
        raise UserError(f"{file}: expected the keys {', '.join(wanted)}")
    given = {"system": "", **given}
    for key in given:
        if key not in wanted:
            raise UserError(f"{file}: unknown key {key}{nearest(str(key), wanted)}")
    for key, kind in wanted.items():
        if not isinstance(given.get(key), kind):
            raise UserError(f"{file}: {key}: expected {kind.__name__}, found {given.get(key)!r}")
    found = set(_FIELD.findall(given["system"] + given["user"]))
    if found - _FIELDS:
        field = sorted(found - _FIELDS)[0]
        raise UserError(f"{file}: unknown field {{{field}}}{nearest(field, _FIELDS)}")
    for field in sorted(_NEEDED - set(_FIELD.findall(given["user"]))):
        raise UserError(f"{file}: user: lacks the field {{{field}}}")
    if len(set(given["labels"])) != 2 or len(given["labels"]) != 2:
        raise UserError(f"{file}: labels: expected two different characters, found {given['labels']!r}")
    return JudgePrompt(**given)


def _fill(template: str, fields: dict[str, str]) -> str:
    return _FIELD.sub(lambda match: fields[match[1]], template)
