"""Which part of a rendered conversation is its last answer: from the prompt of sampling to the first end of turn.

Most templates write a conversation as the generation prompt and what follows it. Some write the prompt otherwise once
it is answered (they open reasoning for sampling only, or drop earlier reasoning), double what the prompt has opened, or
go on after the end of turn.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from prospect.conversation import Message
from prospect.model.left_out import Parted, shows
from prospect.model.shield import Shield
from prospect.model.turn_marks import TurnMarks, alike

_UNREASONED = "answer without reasoning behind a prompt that opens it: the reasoning is closed empty"
_STOPPED = "answer in which the chat template writes an end of turn before the last part: sampling stops there"


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """Finds the answer in renderings of one template; ``stops`` are the names of all tokens that end an answer."""

    shield: Shield
    marks: TurnMarks
    stops: tuple[str, ...]

    def apart(self, prompt: str, unasked: str, full: str, answer: Message, parted: Parted) -> str:
        """What a template writes for an answer, though not after the prompt of sampling.

        Where ``prompt`` and ``full`` agree beyond ``unasked``, the conversation without a generation prompt, it is all
        that follows the tokens that they share; else all behind the last header before the answer, or the answer alone.
        """
        shared, header = self._shared(prompt, full), prompt[alike(prompt, unasked) :]
        if shared >= alike(prompt, unasked):
            return self._past(prompt[shared:], full[shared:], self._first(full[shared:], answer, parted.said))
        first = self._first(full, answer, parted.thought or parted.said)
        start = full.rfind(header, 0, first) if header.strip() else -1
        return full[start + len(header) :] if start >= 0 else full[first:]

    def reasoned(self, prompt: str, rest: str, parted: Parted) -> tuple[str, list[str]]:
        """An answer behind a prompt that opens its reasoning: without a second opening, closed where there is none.

        Also what is to be said of it.
        """
        opened = self.marks.opened
        if opened is None or not prompt.endswith(opened.opening):
            return rest, []
        opening, closing = opened.marks
        if rest.lstrip().startswith(opening):
            rest = rest.lstrip().removeprefix(opening).lstrip()
        thought, said = self.shield.put(parted.thought), self.shield.put(parted.said)
        if not thought.strip():
            closed = rest.lstrip().startswith(closing)
            return rest if closed else opened.closing + rest.lstrip(), [_UNREASONED]
        if thought.strip() in rest and closing in rest:
            return rest, []
        at = self.shield.blank(rest).rfind(said.strip()) if said.strip() else -1  # the template has cut the thought
        kept = rest[at:] if at >= 0 else (said or rest).lstrip()
        return thought.strip("\n") + opened.closing + kept, []

    def ended(self, rest: str, answer: Message, parted: Parted) -> tuple[str, list[str]]:
        """An answer up to and with the first end of turn after what it says and calls; the end is added if missing.

        What some templates write after it (a newline, another end) belongs to what follows: the model stops at the
        token and never has to predict it. Also what is to be said of it.
        """
        said = [self.shield.put(text) for text in (parted.said, *answer.called())]
        blank, found = self.shield.blank(rest), rest + self.marks.turn_end
        called = [self.marks.call_end] if answer.calls and self.marks.call_end else []
        for name in dict.fromkeys((self.marks.turn_end, *called, *self.stops)):
            ends = [match.end() for match in re.finditer(re.escape(name), rest)]
            whole = [at for at in ends if all(shows(blank[: at - len(name)], text) for text in said)]
            if whole or (ends and name == self.marks.turn_end):
                found = rest[: min(whole, default=ends[0])]
                break
        early = any(name in found.removesuffix(name) for name in self.stops)
        return found, [_STOPPED] if early else []

    def _shared(self, one: str, other: str) -> int:
        """How many characters of ``other`` its first tokens have that ``one`` begins with, too."""
        if not self.shield.tokenizer.is_fast:  # it does not tell where its tokens end
            return alike(one, other)
        count = alike(self.shield.encode(one), self.shield.encode(other))
        return self.shield.ends(other)[count - 1] if count else 0

    @staticmethod
    def _past(tail: str, rest: str, first: int) -> str:
        """What follows a repetition of the prompt's ``tail`` (a header, the end of empty reasoning), if one stands
        before ``first``, where the answer speaks: the prompt has it already."""
        at = rest.find(tail.strip(), 0, first) if tail.strip() else -1
        if at < 0:
            return rest
        rest = rest[at + len(tail.strip()) :]
        return rest.lstrip() if tail[-1:].isspace() else rest

    def _first(self, text: str, answer: Message, said: str) -> int:
        """Where a rendering that ends with an answer begins to say it; its length where it says nothing."""
        wanted = next((self.shield.put(x).strip() for x in (said, *answer.called()) if x.strip()), "")
        at = self.shield.blank(text).rfind(wanted) if wanted else -1
        return at if at >= 0 else len(text)
