"""What a chat template writes around turns, found by rendering a conversation whose words are known.

No template says where a turn ends or which of its marks belong into an answer; what it writes between known words does.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from prospect.conversation import Call, Conversation, Message, answered
from prospect.errors import UserError

Write = Callable[[Conversation, bool], str]  # a conversation, whether it asks for an answer → text

_QUESTIONS = ("Firstquestion", "Secondquestion")
_ANSWERS = ("Firstanswer", "Secondanswer")
_THOUGHT = "Somethought"
_OPENED = re.compile(r"([<\[][^<>\[\]\s]*(?:think|thought|reason)[^<>\[\]\s]*[>\]])\s*$", re.IGNORECASE)
# Marks that belong into answers, also where a template spells them in its instructions (Phi-4 does).
_IN_ANSWERS = re.compile("think|thought|reason|tool|call", re.IGNORECASE)
_NO_ARGUMENTS = {"type": "object", "properties": {}}
SOME_TOOL = json.dumps(
    [{"type": "function", "function": {"name": "somecall", "description": "Some.", "parameters": _NO_ARGUMENTS}}]
)
_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What a template writes around an answer's reasoning: ``<think>\\n`` and ``\\n</think>\\n\\n``, say."""

    opening: str
    closing: str

    @property
    def marks(self) -> tuple[str, str]:
        """Both without white space."""
        return self.opening.strip(), self.closing.strip()


@dataclass(frozen=True, slots=True)
class TurnMarks:
    """Facts of one template with one tokenizer.

    ``turn_end`` is the token that ends an answer, ``call_end`` the one that ends a tool call where the template writes
    no end of turn after it (``<|call|>`` of gpt-oss). ``around`` are the added tokens that the template writes around
    turns. ``opened`` is the reasoning that the prompt of sampling already opens, None where it opens none. ``lead`` and
    ``closing`` are what the template writes before an answer's text, behind the generation prompt, and between the text
    and its end; ``asks``: it has a generation prompt.
    """

    turn_end: str
    call_end: str | None
    around: frozenset[str]
    opened: Reasoning | None
    lead: str
    closing: str
    asks: bool


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """All special tokens: those with a name in the tokenizer, and those that only tokenizer.json calls special."""
    found = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    return found | {str(token): i for i, token in tokenizer.added_tokens_decoder.items() if token.special}


def named_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Names of BOS, EOS, padding and the like."""
    named = {getattr(tokenizer, name, None) for name in _NAMED}
    return {str(name) for name in named if name is not None}


def takes_parts(write: Write, write_parts: Write) -> bool:
    """Whether a template writes content only as a list of parts: given as text, it vanishes.

    Raises:
        UserError: it refuses a question and its answer, or writes the question in neither form.
    """
    talk = Conversation((Message("user", _QUESTIONS[0]), answered(_ANSWERS[0])))
    if _QUESTIONS[0] in write(talk, False):
        return False
    with contextlib.suppress(UserError):
        if _QUESTIONS[0] in write_parts(talk, False):
            return True
    raise UserError("chat_template: writes nothing of a user's turn; only its marks would be seen")


def find(write: Write, tokenizer: PreTrainedTokenizerBase) -> TurnMarks:
    """The facts of a template.

    Raises:
        UserError: the template writes nothing of an answer: only its end would be trained.
    """
    (q1, q2), (a1, a2) = _QUESTIONS, _ANSWERS
    user, said = Message("user", q1), answered(a1)
    alone = write(Conversation((user, said)), False)
    if a1 not in alone:
        raise UserError("chat_template: writes nothing of an answer; only its end would be trained, with every answer")
    added = _Added.of(tokenizer)
    head, after = alone.split(q1)[0] if q1 in alone else "", alone.rpartition(a1)[2]
    between = ""
    with contextlib.suppress(UserError):  # a template may refuse a second turn
        whole = write(Conversation((user, said, Message("user", q2), answered(a2))), False)
        between = whole.partition(a1)[2].partition(q2)[0]
    written_end = added.end(head, after, between)
    turn_end = written_end or str(tokenizer.eos_token)
    prompt = write(Conversation((user,)), True)
    opened = _opened(write, user, prompt)
    headers = {*added.among(head), *added.among(between.partition(turn_end)[2]), *_around_system(write, added, user)}
    call = _call(write, user)
    of_answers = {*added.before(turn_end, _beyond(prompt, alone)), *added.before(turn_end, call)}
    of_answers = {*(of_answers - headers), *(opened.marks if opened else ())}
    known = added.special.intersection(added.among(str(tokenizer.chat_template)))  # of images, say
    written = {*headers, *added.among(prompt), *known}
    around = {token for token in written - of_answers if not _IN_ANSWERS.search(token)}
    open_call = written_end is not None and turn_end not in call
    call_end = next((x for x in added.among(call)[-1:] if call.rstrip().endswith(x)), None) if open_call else None
    return TurnMarks(
        turn_end,
        call_end,
        frozenset({*around, turn_end, *named_tokens(tokenizer)}),
        opened,
        lead=alone[len(prompt) : alone.rfind(a1)] if alone.startswith(prompt) else "",
        closing=after.partition(turn_end)[0] if turn_end in after or not after.strip() else "",
        asks=prompt != write(Conversation((user,)), False),
    )


def _around_system(write: Write, added: _Added, user: Message) -> list[str]:
    """Marks around a system turn, where the template takes one."""
    with contextlib.suppress(UserError):
        text = write(Conversation((Message("system", _THOUGHT), user)), True)
        return added.among(text.partition(_QUESTIONS[0])[0])
    return []


def _call(write: Write, user: Message) -> str:
    """What the template writes of an answer that calls a tool; nothing where it writes no calls."""
    name, asked = "somecall", Conversation((user,), SOME_TOOL)
    with contextlib.suppress(UserError):
        whole = write(asked.then(Message("assistant", "", calls=(Call(name, id="abcde1234"),))), False)
        rest = _beyond(write(asked, True), whole)
        return rest if name in rest else ""
    return ""


def _beyond(prompt: str, whole: str) -> str:
    """What a text has after all that it begins with alike."""
    return whole[alike(prompt, whole) :]


@dataclass(frozen=True, slots=True)
class _Added:
    """The tokens that were added to a vocabulary: a turn's marks are among them."""

    pattern: re.Pattern[str]
    special: frozenset[str]
    bos: str | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> _Added:
        special = frozenset(special_tokens(tokenizer))
        names = {str(token) for token in tokenizer.added_tokens_decoder.values() if not _is_word(str(token))} | special
        ordered = sorted(names, key=lambda name: (-len(name), name))
        return cls(re.compile("|".join(map(re.escape, ordered))), special, tokenizer.bos_token)

    def among(self, text: str) -> list[str]:
        """Those that stand in a text, in order."""
        return self.pattern.findall(text)

    def before(self, end: str, text: str) -> list[str]:
        """Those that close an answer before its end: Cohere's ``<|END_RESPONSE|>``."""
        found = self.among(text)
        return found[: found.index(end)] if end in found else found

    def end(self, head: str, after: str, between: str) -> str | None:
        """The token that ends a turn.

        It is the last special one that the template writes after an answer whatever follows, before a mark that begins
        a turn (some templates always begin the next one). Where the last answer ends otherwise than the ones before
        it (gpt-oss), it is the first one after the last answer.
        """
        begun = [token for token in self.among(head) if token != self.bos]
        openers = {begun[0], begun[-1]} if begun else set()
        shared = self.among(after)[: alike(self.among(after), self.among(between))]
        first = next((i for i, token in enumerate(shared) if i and token in openers), len(shared))
        for tokens in (shared[:first], self.among(after)[:1]):
            special = [token for token in tokens if token in self.special]
            if special or tokens:
                return (special or list(tokens))[-1]
        return None


def _is_word(name: str) -> bool:
    """Whether an added token is white space or a word, which templates also write as text."""
    return not name.strip() or name.isalnum()


def alike(one: Sequence[object], other: Sequence[object]) -> int:
    """How many items both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _opened(write: Write, user: Message, prompt: str) -> Reasoning | None:
    """The reasoning that the prompt of sampling opens: by its last mark, closed as the template closes it."""
    found = _OPENED.search(prompt)
    if found is None or found[1].startswith(("</", "[/")) or "END" in found[1]:
        return None
    opening = prompt[found.start() :]
    with contextlib.suppress(UserError):
        whole = write(Conversation((user, Message("assistant", _ANSWERS[0], reasoning=_THOUGHT))), False)
        if _THOUGHT in whole:
            closing = whole.rpartition(_THOUGHT)[2].partition(_ANSWERS[0])[0]
            if closing.strip():
                return Reasoning(opening, closing)
    mark = found[1]
    closing = mark.replace("START", "END") if "START" in mark else f"{mark[0]}/{mark[1:]}"
    return Reasoning(opening, f"\n{closing}\n\n")
