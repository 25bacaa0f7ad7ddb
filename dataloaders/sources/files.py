"""One's own data: the shapes that TRL, LLaMA-Factory and HALOs write, told apart by their columns.

A prompt is a text, a list of messages, or absent where chosen and rejected begin alike. Messages are ``{role,
content}`` or ShareGPT's ``{from, value}``, as such, as JSON or Python text, or as a struct of lists. What columns mean
is in columns.py; what no shape reads (given.py) is told with its counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dataloaders.example import Drops, Example
from dataloaders.sources.columns import NAMES, Layout, layout, number
from dataloaders.sources.dialogue import (
    Turns,
    answered,
    before_answers,
    exchanges,
    holds_turns,
    merged,
    opening,
    ordered,
    same,
    turns,
)
from dataloaders.sources.given import Given, Unread
from dataloaders.sources.rows import Row, Rows
from dataloaders.sources.source import BadRow, each_row, unicode, user
from prospect.config.schema import Split
from prospect.conversation import Message
from prospect.errors import UserError
from prospect.message_forms import is_conversation

COLUMNS = tuple(NAMES)
_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}  # of rows of texts


def read(rows: Rows, split: Split, seed: int, drops: Drops) -> Iterator[Example]:
    """One example a row, in whichever of the known shapes the rows come."""
    columns = layout(rows)
    reader = _Reader(rows, columns, _shape(rows, columns))
    unread = Unread()
    for example in each_row(rows, drops, reader):
        for note in reader.row.notes:
            drops.note(note, example.place)
        unread.add(reader.row, example.place)
        yield example
    if unread.rows:
        drops.note(unread.line(), unread.place, unread.rows)


@dataclass(slots=True)
class _Reader:
    """Makes examples of rows; ``row`` is the last one."""

    rows: Rows
    layout: Layout
    shape: Shape
    row: Given = field(init=False)

    def __call__(self, row: Row) -> Example:
        self.row = Given.of(self.layout, self.rows, row)
        return self.shape.example(self.row)


def _shape(rows: Rows, columns: Layout) -> Shape:
    """The first shape of which a row has all columns; one whose answers the user has named comes first.

    Raises:
        UserError: there is none.
    """
    known = {meaning for meaning in NAMES if columns.has(meaning)}
    named = {meaning for meaning, column in columns.mapped.items() if column is not None} - {"prompt", "messages"}
    shapes = sorted((s for s in SHAPES if s.columns <= known), key=lambda s: -len(s.columns & named))
    for shape in shapes:
        if any(all(columns.holds(row, meaning) for meaning in shape.columns) for row in columns.first):
            return shape
    if shapes:
        return shapes[0]
    first = (*columns.unknown, *rows.found)[0]
    raise UserError(
        f"{rows.origin}: columns {', '.join(rows.found)} are no known shape ({'; '.join(s.says for s in SHAPES)}); "
        f"map them with {columns.key}.columns, as in ++{columns.key}.columns.prompt={first}"
    )


def _pair(row: Given) -> Example:
    return _paired(row, "chosen", "rejected", ("score_chosen", "score_rejected"))


def _compared(row: Given) -> Example:
    """HALOs' pairwise feedback: the label says which output is the better one."""
    first = _verdict(row, "1 where `output_A` is the better answer, 0 where `output_B` is")
    sides = ("output_A", "output_B") if first else ("output_B", "output_A")
    return _paired(row, *sides, ("score_A", "score_B") if first else ("score_B", "score_A"))


def _paired(row: Given, better: str, worse: str, scores: tuple[str, str]) -> Example:
    one, other = row.turns(better, "assistant"), row.turns(worse, "assistant")
    context = _context(row, one)
    if len(one) == len(other) == 1 and all(turn.role == "system" for turn in context):
        prompt, one, other = _implied(row, better, worse)
        context += prompt
    whole = before_answers(context, one[:-1], other[:-1])
    if whole is None:
        raise BadRow(f"`{row.name(better)}` and `{row.name(worse)}` differ in more than their last turn")
    answers = (_last(one, row.name(better)), _last(other, row.name(worse)))
    graded = _scores(row, *scores)
    if graded and graded[0] < graded[1]:
        row.note("a pair whose rejected answer has the higher score")
    return Example("", "", ordered(whole), answers, pairs=((0, 1),), scores=graded, tools=row.tools())


def _last(side: Turns, column: str) -> Message:
    """The answer of one side of a pair."""
    if side[-1].role != "assistant":
        raise BadRow(f"`{column}` does not end with an assistant turn")
    if not side[-1].trained:
        raise BadRow(f"`{column}` ends with a turn that may not be trained")
    return side[-1]


def _implied(row: Given, better: str, worse: str) -> tuple[Turns, Turns, Turns]:
    """TRL's implicit prompt: what both texts begin with, where nothing else may be the prompt."""
    columns, chosen, rejected = row.layout, row.get(better), row.get(worse)
    if columns.has("prompt") or columns.has("messages"):
        raise BadRow("empty prompt")
    key = f"++{columns.key}.columns.prompt"
    if columns.unknown and "prompt" not in columns.mapped:
        other = columns.unknown[0]
        raise UserError(f"no column is known to hold the prompt; if `{other}` does: {key}={other}; if none: {key}=null")
    if not columns.opens_alike:
        raise UserError(f"no column holds the prompt, nor do both answers begin with it; name one: {key}=<column>")
    prompt = opening(chosen, rejected)
    if not prompt.strip():
        raise BadRow(f"no prompt: `{row.name(better)}` and `{row.name(worse)}` begin with no common word")
    row.note(f"the prompt is what `{row.name(better)}` and `{row.name(worse)}` both begin with")
    rest = [turns(text[len(prompt) :], "", "assistant") for text in (chosen, rejected)]
    return user(prompt), rest[0], rest[1]


def _single(row: Given) -> Example:
    prompt, answer, after = answered(_conversation(row))
    if after:
        row.note("turns after the last answer that may be trained are left out")
    return Example("", "", ordered(prompt), (answer,), scores=_scores(row, "score"), tools=row.tools())


def _labelled(row: Given) -> Example:
    label = _verdict(row, "true for a desirable answer, false for an undesirable one")
    single = _single(row)
    return Example(
        *("", "", single.prompt, single.answers),
        desirable=(label,),
        scores=single.scores,
        imitate=0 if label else None,
        tools=single.tools,
    )


def _prompt_only(row: Given) -> Example:
    return Example("", "", ordered(_context(row, ())), (), imitate=None, tools=row.tools())


def _document(row: Given) -> Example:
    text = row.get("text")
    if text is None:
        raise BadRow("no `text`")
    return Example("", "", (), (), imitate=None, text=unicode(text, f"`{row.name('text')}`"))


@dataclass(frozen=True, slots=True)
class Shape:
    """Columns that tell a shape, and how one of its rows is read."""

    says: str
    columns: frozenset[str]
    example: Callable[[Given], Example]


SHAPES = (
    Shape("prompt, output_A, output_B, label", frozenset({"output_A", "output_B", "label"}), _compared),
    Shape("prompt or messages or nothing, with chosen and rejected", frozenset({"chosen", "rejected"}), _pair),
    Shape("prompt, completion, label", frozenset({"prompt", "completion", "label"}), _labelled),
    Shape("messages, label", frozenset({"messages", "label"}), _labelled),
    Shape("prompt, completion", frozenset({"prompt", "completion"}), _single),
    Shape("messages", frozenset({"messages"}), _single),
    Shape("prompt", frozenset({"prompt"}), _prompt_only),
    Shape("text", frozenset({"text"}), _document),
)


def _conversation(row: Given) -> Turns:
    """Turns with the answer among them, in messages of their own or beside its prompt."""
    if not row.holds("completion"):
        if not row.holds("messages"):  # says what is missing, or that it is empty
            missing = "completion" if row.layout.has("completion") else "messages"
            return _context(row, ()) + row.turns(missing, "assistant" if missing == "completion" else None)
        return _context(row, None)
    completion = row.turns("completion", "assistant")
    context = _context(row, completion)
    if not context or context[-1].role != "assistant":
        return merged(context, completion[:-1]) + completion[-1:]
    mapped = row.layout.mapped  # two answers: in the messages, and of its own
    if mapped.get("completion"):
        return context[:-1] + completion
    if mapped.get("messages"):
        row.skip("completion")
        return context
    raise row.layout.doubt("the answer", ("messages", row.name("messages")), ("completion", row.name("completion")))


def _context(row: Given, answer: Turns | None) -> Turns:
    """The turns before the answer, as far as columns of their own hold them; None: messages hold the answer, too."""
    own = row.turns("messages") if row.holds("messages") else ()
    if answer and own and own[-1].role == "assistant" and same(own[-1:], answer[-1:]):
        own = own[:-1]
    talk = _earlier(row) + _beside(row, own, _asked(row), answer is None)
    if not row.holds("system"):
        return talk
    system = (Message("system", unicode(row.get("system"), f"`{row.name('system')}`")),)
    return merged(system, talk) if talk else system


def _earlier(row: Given) -> Turns:
    """What a history tells: messages, or pairs of a question and its answer."""
    if not row.holds("history"):
        return ()
    history = row.get("history")
    return row.turns("history") if is_conversation(history) else tuple(exchanges(history, row.name("history")))


def _asked(row: Given) -> Turns:
    """The prompt of a row; an input beside a text belongs to it, as Alpaca has it."""
    if not row.holds("prompt"):
        is_all = row.name("input").lower() == "input" and row.layout.has("prompt") and not row.holds("messages")
        return row.turns("input", "user") if is_all and row.holds("input") else ()
    prompt = row.turns("prompt", "user")
    if isinstance(row.get("prompt"), str) and row.holds("input"):
        extra = unicode(row.get("input"), f"`{row.name('input')}`")
        return user(f"{prompt[0].content}\n{extra}") if extra.strip() else prompt
    return prompt


def _beside(row: Given, own: Turns, asked: Turns, whole: bool) -> Turns:
    """Messages and a prompt: as a rule one of them holds the other; ``whole``: the messages hold the answer."""
    if not own or not asked or holds_turns(asked, own):
        return asked or own
    if holds_turns(own, asked) or any(asked[0].content.split() == turn.content.split() for turn in own):
        return own
    if whole:
        row.skip("prompt")
        return own
    if own[-1].role == "assistant":
        return own + asked
    raise BadRow(f"`{row.name('prompt')}` does not stand in `{row.name('messages')}`")


def _verdict(row: Given, means: str) -> bool:
    label = row.get("label")
    if row.layout.is_text:
        label = _LABELS.get(str(label).strip().lower(), label)
    if not isinstance(label, bool | int | float) or label not in (0, 1):
        name, key = row.name("label"), row.layout.key
        raise UserError(f"`{name}` is {label!r}; write {means} (++{key}.columns.label=null: it is no verdict)")
    return bool(label)


def _scores(row: Given, *meanings: str) -> tuple[float, ...]:
    """One number an answer, or none at all: where one is missing or no number, that is said."""
    if not any(map(row.holds, meanings)):
        return ()
    try:
        values = [number(row.get(meaning)) for meaning in meanings]
    except UserError:
        row.note("two columns of scores differ: the scores are not read")
        return ()
    for meaning, value in zip(meanings, values, strict=True):
        if value is None:
            row.note(f"`{row.name(meaning)}` is no number: the scores are not read")
            return ()
    return tuple(value for value in values if value is not None)
