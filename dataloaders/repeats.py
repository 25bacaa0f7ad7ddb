"""What rows say more than once: the same example, a pair both ways round, an answer that is called good and bad."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field

from dataloaders.example import Example
from prospect.conversation import Message

AGAIN = "a row that repeats an earlier one: it is trained as often as it stands there"
TURNED = "a pair that stands there the other way round, too: the two contradict each other"
BOTH = "an answer that stands there with the other label, too: the two contradict each other"


@dataclass(slots=True)
class Repeats:
    """The examples of one data set so far, by the hash of what they say."""

    name: str
    _seen: Counter[bytes] = field(default_factory=Counter)
    _labels: dict[bytes, tuple[bool, ...]] = field(default_factory=dict)

    def add(self, found: Example) -> tuple[str, str | None]:
        """(identity, what of it is a repetition). The second example with the same content has a numbered identity."""
        digest = self._digest(found, found.answers)
        self._seen[digest] += 1
        count = self._seen[digest]
        identity = digest.hex() + (f"-{count}" if count > 1 else "")
        if found.desirable and self._labels.setdefault(digest, found.desirable) != found.desirable:
            return identity, BOTH
        if count > 1:
            return identity, AGAIN
        turned = found.pairs == ((0, 1),) and self._digest(found, found.answers[::-1]) in self._seen
        return identity, TURNED if turned else None

    def _digest(self, found: Example, answers: tuple[Message, ...]) -> bytes:
        """Content hash of (data set, prompt, answers or text)."""
        prompt = [(turn.role, _said(turn)) for turn in found.prompt]
        content: list[object] = [self.name, prompt, [*map(_said, answers)]]
        content += [extra for extra in (found.text, found.tools or None) if extra is not None]
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).digest()


def _said(turn: Message) -> object:
    """All that a turn holds, for a key: its text where that is all."""
    return turn.content if turn.is_plain else turn.row()
