"""Sample files and the pairs of answers that stand in them.

A file is what eval.py writes (``{"config", "samples": [{"prompt", "chosen", "policy", …}]}``), a plain list of such
rows or of AlpacaEval's (``instruction``, ``output``), or JSONL. Rows are joined by the hash of their prompt and their
sample index; what finds no partner or comes twice is counted, never dropped in silence.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prospect.conversation import Conversation, asked
from prospect.errors import UserError, nearest
from prospect.judge.options import Options
from prospect.judge.tables import (
    Row,
    answer_in,
    check_rows,
    content_of,
    is_messages,
    said,
    sendable,
    with_input,
    with_system,
)

_ALIASES = {"prompt": "instruction", "policy": "output"}  # our default columns → AlpacaEval's
_INDEX = ("sample", "sample_id")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt. ``prompt_id`` is the prompt's hash: pairs that share it are one cluster;
    ``conversation`` is what a judge reads of it. Where the file says so: ``dataset`` (or category) is where the prompt
    comes from, ``reference`` an answer known to be right, ``turns`` the conversation as messages."""

    prompt_id: str
    sample: int
    conversation: str
    candidate: str
    baseline: str
    dataset: str = ""
    reference: str = ""
    turns: Conversation | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that compete: its name in the result and the file and column it comes from."""

    name: str
    file: Path
    column: str


@dataclass(frozen=True, slots=True)
class Match:
    """Who competes and on what. ``notes`` are counts that a reader must know; ``config`` is the candidate's run's."""

    candidate: Side
    baseline: Side
    pairs: tuple[Pair, ...]
    config: Mapping[str, Any]
    exp_name: str
    notes: tuple[str, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Prompt:
    """What a row asks: the fields that its pairs share."""

    conversation: str
    dataset: str
    reference: str
    turns: Conversation | None

    def pair(self, key: tuple[str, int], candidate: str, baseline: str) -> Pair:
        return Pair(*key, self.conversation, candidate, baseline, self.dataset, self.reference, self.turns)


@dataclass(frozen=True, slots=True)
class _File:
    """A samples file as read."""

    path: Path
    rows: Sequence[Row]
    config: Mapping[str, Any]

    @property
    def exp_name(self) -> str:
        return str(self.config.get("exp_name") or self.path.stem)

    def column(self, wanted: str, flag: str) -> str:
        """The name under which ``wanted`` stands here."""
        for name in (wanted, _ALIASES.get(wanted)):
            if name is not None and name in self.rows[0]:
                return name
        known = sorted(map(str, self.rows[0]))
        raise UserError(
            f"{self.path}: no column `{wanted}` ({flag}){nearest(wanted, known)}; it has {', '.join(known)}"
        )

    def text(self, number: int, column: str) -> str:
        """An answer as text that can be sent."""
        value = answer_in(self.rows[number], column)
        return said(self._place(number, column), value).text() if is_messages(value) else self._text(number, column)

    def prompt(self, number: int, column: str) -> _Prompt:
        """What a row asks: the messages or the text of ``column``, with the row's tools."""
        row = self.rows[number]
        text, turns = self._asked(number, column)
        return _Prompt(
            text, str(row.get("category") or row.get("dataset") or ""), str(row.get("reference") or ""), turns
        )

    def _asked(self, number: int, column: str) -> tuple[str, Conversation | None]:
        row = self.rows[number]
        if is_messages(row.get(column)):
            turns = with_system(row, said(self._place(number, column), row[column], row.get("tools")))
            return turns.text(), turns
        text = self._text(number, column)
        if is_messages(row.get("messages")):  # the text is theirs as a template wrote it, tools included
            return text, said(self._place(number, "messages"), row["messages"], row.get("tools"))
        plain = asked(with_input(row, column, text))
        turns = with_system(row, plain)
        if row.get("tools"):
            turns = said(self._place(number, column), turns.rows(), row["tools"])
        return turns.text(), None if turns == plain else turns

    def _text(self, number: int, column: str) -> str:
        value = answer_in(self.rows[number], column)
        if not isinstance(value, str):
            raise UserError(f"{self._place(number, column)} is {json.dumps(value)[:40]}, not a text")
        return str(sendable(value))

    def _place(self, number: int, column: str) -> str:
        return f"{self.path}: row {number + 1}: `{column}`"


@dataclass(slots=True)
class _Answers:
    """Answers of one or two columns by (prompt id, sample index), and what was left out on the way."""

    found: dict[tuple[str, int], tuple[str, ...]] = field(default_factory=dict)
    prompts: dict[str, _Prompt] = field(default_factory=dict)
    duplicates: int = 0
    empty: int = 0


def load_match(options: Options) -> Match:
    """Read the file or files of a comparison and pair the answers.

    Raises:
        UserError: a file cannot be read or lacks a column, or nothing is left to compare.
    """
    file = _read(options.file)
    column = file.column(options.candidate_key, "-ck")
    if options.other is None:
        match = _within(file, column, options)
    else:
        match = _between(file, column, _read(options.other), options)
    if not match.pairs:
        raise UserError(f"{options.file}: nothing to compare" + "".join(f"; {note}" for note in match.notes))
    return match


def select(pairs: Sequence[Pair], n_prompts: int | None, seed: int) -> tuple[Pair, ...]:
    """Pairs of the first ``n_prompts`` prompts by hash: the same ones however the file grows or is ordered."""
    order = {p.prompt_id: hashlib.sha256(f"{seed} {p.prompt_id}".encode()).digest() for p in pairs}
    chosen = set(sorted(order, key=lambda prompt_id: order[prompt_id])[:n_prompts])
    kept = [pair for pair in pairs if pair.prompt_id in chosen]
    return tuple(sorted(kept, key=lambda pair: (order[pair.prompt_id], pair.sample)))


def read_samples(path: Path) -> tuple[Sequence[Row], Mapping[str, Any]]:
    """The rows of a samples file, and the configuration of the run that made them.

    Raises:
        UserError: it cannot be read, or holds no rows.
    """
    file = _read(path)
    return file.rows, file.config


def _within(file: _File, column: str, options: Options) -> Match:
    """Two columns of one file."""
    base = file.column(options.baseline_key or "chosen", "-bk")
    if base == column:
        raise UserError(f"-ck and -bk name the same column `{column}`; name two, or another file with -f2")
    answers = _answers(file, (column, base), options.history_key, _by_messages(options, file))
    pairs = tuple(answers.prompts[key[0]].pair(key, *texts) for key, texts in answers.found.items())
    counts = {"rows": len(file.rows), "duplicates": answers.duplicates, "empty": answers.empty}
    return Match(
        candidate=Side(column, file.path, column),
        baseline=Side(base, file.path, base),
        pairs=pairs,
        config=file.config,
        exp_name=file.exp_name,
        notes=_notes(counts),
        counts=counts,
    )


def _between(file: _File, column: str, other: _File, options: Options) -> Match:
    """The candidate's column of one file against one of another."""
    base = other.column(options.baseline_key or options.candidate_key, "-bk" if options.baseline_key else "-ck")
    if file.path.resolve() == other.path.resolve() and base == column:
        raise UserError(f"-f and -f2 are the same column `{column}` of the same file {file.path}")
    by_messages = _by_messages(options, file, other)
    ours = _answers(file, (column,), options.history_key, by_messages)
    theirs = _answers(other, (base,), options.history_key, by_messages)
    shared = [key for key in ours.found if key in theirs.found]
    pairs = tuple(ours.prompts[key[0]].pair(key, ours.found[key][0], theirs.found[key][0]) for key in shared)
    counts = {
        "rows": len(file.rows),
        "duplicates": ours.duplicates + theirs.duplicates,
        "empty": ours.empty + theirs.empty,
        f"only in {file.path}": len(ours.found) - len(pairs),
        f"only in {other.path}": len(theirs.found) - len(pairs),
    }
    names = (file.exp_name, other.exp_name)
    if names[0] == names[1]:
        names = (str(file.path), str(other.path))
    return Match(
        candidate=Side(names[0], file.path, column),
        baseline=Side(names[1], other.path, base),
        pairs=pairs,
        config=file.config,
        exp_name=file.exp_name,
        notes=_notes(counts),
        counts=counts,
    )


def _notes(counts: Mapping[str, int]) -> tuple[str, ...]:
    """What a reader must know of rows that are not compared."""
    words = {
        "duplicates": "rows come twice (same prompt, same sample): the first one counts",
        "empty": "answers are empty: the judge is told so",
    }
    return tuple(f"{n} {words.get(what, what)}" for what, n in counts.items() if n and what != "rows")


def _answers(file: _File, columns: tuple[str, ...], history_key: str, by_messages: bool) -> _Answers:
    """Rows by (prompt, sample). A row without an index is the next sample of its prompt, unless it says the same."""
    history = "messages" if by_messages else file.column(history_key, "-hk")
    prefix = str(file.config.get("assistant_prefix") or "").strip()
    result, unnumbered = _Answers(), Counter[str]()
    for number, row in enumerate(file.rows):
        prompt = file.prompt(number, history)
        key = hashlib.sha256(prompt.conversation.encode()).hexdigest()
        texts = tuple(file.text(number, column) for column in columns)
        index = next((row[name] for name in _INDEX if isinstance(row.get(name), int)), None)
        if index is None:
            index = unnumbered[key]
            if any(result.found[key, k] == texts for k in range(index)):
                result.duplicates += 1
                continue
            unnumbered[key] += 1
        elif (key, index) in result.found:
            result.duplicates += 1
            continue
        result.found[key, index] = texts
        result.empty += sum(not text.strip() for text in texts)
        shown = prompt.conversation if by_messages else prompt.conversation.strip().removesuffix(prefix)
        result.prompts.setdefault(key, replace(prompt, conversation=shown))
    return result


def _by_messages(options: Options, *files: _File) -> bool:
    """Whether every row carries its chat messages: these are the same whatever template a model was trained with."""
    if options.history_key != "prompt":
        return False
    return all(isinstance(row.get("messages"), list) and row["messages"] for file in files for row in file.rows)


def _read(path: Path) -> _File:
    content = content_of(path)
    if path.suffix == ".jsonl" and isinstance(content, dict) and "samples" not in content:
        content = [content]  # one line
    config = content.get("config") if isinstance(content, dict) else None
    rows = content.get("samples") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not rows:
        raise UserError(
            f'{path}: expected {{"config", "samples": [...]}}, a list of rows, or JSONL with at least one row'
        )
    check_rows(path, rows)
    return _File(path, rows, config if isinstance(config, dict) else {})
