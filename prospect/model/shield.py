"""Names of control tokens in messages stay text: each is swapped for a mark before rendering and spelled out after it.

A template's own marks and a message that spells them look alike once they are rendered, so a tokenizer would make the
spelled one the token, which could end a turn or begin one. The marks stand in Unicode's private use area.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from transformers import PreTrainedTokenizerBase

from prospect.conversation import Message

_OPEN, _CLOSE = "\ue000", "\ue001"
_MARK = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


class Shield:
    """Marks for ``names``, and for the character that marks begin with where a message holds it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, names: Iterable[str]) -> None:
        self.tokenizer = tokenizer
        self.names = (_OPEN, *sorted(set(names), key=lambda name: (-len(name), name)))  # a longer name goes first
        self._number = {name: i for i, name in enumerate(self.names)}
        self._any = re.compile("|".join(map(re.escape, self.names)))

    @property
    def tokens(self) -> tuple[str, ...]:
        """The names of tokens."""
        return self.names[1:]

    def put(self, text: str) -> str:
        """A message's text with marks in the place of names."""
        return self._any.sub(lambda found: f"{_OPEN}{self._number[found[0]]}{_CLOSE}", text)

    def put_all(self, value: Any) -> Any:
        """The same for all texts of a JSON value; keys stay."""
        if isinstance(value, str):
            return self.put(value)
        if isinstance(value, dict):
            return {key: self.put_all(item) for key, item in value.items()}
        return [self.put_all(item) for item in value] if isinstance(value, list) else value

    def spelled(self, messages: Iterable[Message]) -> Iterator[str]:
        """A note, for people, where messages spell the template's own marks: they may be formatted already."""
        if any(name != _OPEN for message in messages for name in self._any.findall(message.content)):
            yield "conversation that spells the chat template's own marks: they stay text (is it formatted already?)"

    def without(self, text: str) -> str:
        """A text without the names of tokens."""
        return self._any.sub(lambda found: found[0] if found[0] == _OPEN else "", text)

    def blank(self, text: str) -> str:
        """Rendered text with the template's own marks blanked out, so that a message's words are not found in them."""
        return self._any.sub(lambda found: found[0] if found[0] == _OPEN else "\0" * len(found[0]), text)

    def lift(self, text: str) -> str:
        """Rendered text as people read it."""
        return _MARK.sub(lambda found: self.names[int(found[1])], text)

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text; nothing is added, and spelled names are text."""
        ids: list[int] = []
        for i, part in enumerate(_MARK.split(text)):
            if i % 2:
                ids += self._spell(self.names[int(part)])
            elif part:
                ids += self.tokenizer(part, add_special_tokens=False).input_ids
        return ids

    def ends(self, text: str) -> list[int]:
        """Where in rendered ``text`` each of its tokens ends; of tokenizers in Rust, which alone tell it."""
        found: list[int] = []
        at = 0
        for i, part in enumerate(_MARK.split(text)):
            if i % 2:
                at += len(part) + len(_OPEN + _CLOSE)
                found += [at] * len(self._spell(self.names[int(part)]))
            elif part:
                found += [at + end for end in _ends(self.tokenizer, part)]
                at += len(part)
        return found

    def _spell(self, name: str) -> list[int]:
        """A token's name as text: never the token itself."""
        own = self.tokenizer.convert_tokens_to_ids(name)
        ids: list[int] = self.tokenizer(name, add_special_tokens=False, split_special_tokens=True).input_ids
        if own not in ids or len(name) < 2:
            return ids
        halves = (name[:1], name[1:])  # an added token that is not special is never split: its halves are
        return [token for half in halves for token in self.tokenizer(half, add_special_tokens=False).input_ids]


def token_id(tokenizer: PreTrainedTokenizerBase, name: str) -> int:
    """The id of a token by its name."""
    found = tokenizer.convert_tokens_to_ids(name)
    assert isinstance(found, int), name
    return found


def _ends(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [end for _, end in offsets]
