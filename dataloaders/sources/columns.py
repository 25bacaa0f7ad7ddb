"""What the columns of somebody's rows mean: by their usual names, or as ``datasets.<name>.columns`` says.

The first hundred rows decide: which columns say something, whether a label is one, which texts spell conversations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dataloaders.sources.dialogue import opening
from dataloaders.sources.rows import Row, Rows
from prospect.errors import UserError
from prospect.message_forms import holds, is_conversation, read_stored, without_nulls

# Meaning -> usual names of its columns, without regard to case; `input` is the prompt where there is no other.
NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "instruction", "question", "query", "problem", "inputs", "user_prompt"),
    "messages": ("messages", "conversations", "conversation"),
    "input": ("input", "context"),
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history",),
    "tools": ("tools", "functions"),
    "completion": ("completion", "output", "response", "answer", "solution", "targets"),
    "chosen": ("chosen", "response_chosen", "chosen_response", "response_j"),
    "rejected": ("rejected", "response_rejected", "rejected_response", "response_k"),
    "output_A": ("output_a",),
    "output_B": ("output_b",),
    "label": ("label", "kto_tag"),
    "score": ("score", "reward"),
    "score_chosen": ("score_chosen",),
    "score_rejected": ("score_rejected",),
    "score_A": ("score_a", "reward_a"),
    "score_B": ("score_b", "reward_b"),
    "text": ("text",),
}
_SAID = ("prompt", "completion", "chosen", "rejected", "output_A", "output_B")  # text, or a conversation
_NO_PAIRS = ("input", "completion", "text")  # nothing of a pair, unless it is the prompt that was looked for
_FACTS = (  # columns of facts about a row: none of them can be its prompt
    *("id", "idx", "index", "uuid", "hash", "source", "dataset", "from_dataset", "subset", "split", "category", "type"),
    *("model", "generator", "lang", "language", "url", "date", "timestamp", "judge", "samples", "metadata", "meta"),
)
_FACT_ENDINGS = ("_id", "_model", "_score", "_rating", "_version", "_date", "_url", "_type", "_source")
_VERDICTS = ("true", "false", "yes", "no", "good", "bad", "desirable", "undesirable", "chosen", "rejected", "like")
_FIRST = 100  # rows that decide what a file's columns are


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of some rows, by what they mean."""

    key: str  # datasets.<name>, for advice
    columns: Mapping[str, tuple[str, ...]]  # meaning -> the columns that may hold it
    mapped: Mapping[str, str | None]  # what the user has said: meaning -> column, None where no column has it
    shadowed: tuple[str, ...]  # columns whose names a mapping has given to others
    spelled: frozenset[str]  # meanings whose texts spell conversations
    first: tuple[Row, ...]
    unknown: tuple[str, ...]  # columns of text that mean nothing beside a pair, of which one may be the prompt
    opens_alike: bool  # each pair of texts begins with a word that both have
    is_text: bool = False  # every cell is text, as in CSV

    def has(self, meaning: str) -> bool:
        """Whether any column holds it."""
        return bool(self.columns.get(meaning))

    def holds(self, row: Row, meaning: str) -> bool:
        """Whether a row says something of it."""
        return any(holds(row.get(column)) for column in self.columns.get(meaning, ()))

    def name(self, meaning: str, column: str | None = None) -> str:
        """How the file calls a column."""
        there = self.columns.get(meaning) or (meaning,)
        return self.mapped.get(meaning) or column or there[0]

    def doubt(self, what: str, *columns: tuple[str, str]) -> UserError:
        """The error that two columns, each given with its meaning, hold one thing."""
        names = " and ".join(f"`{column}`" for _, column in columns)
        keys = " or ".join(f"++{self.key}.columns.{meaning}={column}" for meaning, column in columns)
        return UserError(f"{names} both hold {what}: {keys} decides")


def layout(rows: Rows) -> Layout:
    """The layout that the first hundred rows show."""
    first = tuple(pruned(row, rows) for row in itertools.islice(rows, _FIRST))
    columns = _columns(first, rows.columns)
    spelled = [meaning for meaning in _SAID if _spells([row.get(c) for row in first for c in columns[meaning]])]
    known = {column for meaning, there in columns.items() if meaning not in _NO_PAIRS for column in there}
    texts = dict.fromkeys(name for row in first for name, value in row.items() if _is_said(value))
    return Layout(
        key=rows.prefix,
        columns=columns,
        mapped=rows.columns,
        shadowed=rows.shadowed,
        spelled=frozenset((*spelled, "messages", "history")),
        first=first,
        unknown=tuple(name for name in texts if name not in known and not _is_fact(name)),
        opens_alike=_open_alike(first, columns["chosen"], columns["rejected"]),
        is_text=rows.is_text,
    )


def _columns(first: Sequence[Row], mapped: Mapping[str, str | None]) -> dict[str, tuple[str, ...]]:
    """The columns of each meaning: those that say something, else those that are there."""
    found = {folded(name): name for row in first for name, value in row.items() if holds(value)}
    present = {folded(name): name for row in first for name in row}
    columns: dict[str, tuple[str, ...]] = {}
    for meaning, names in NAMES.items():
        if meaning in mapped:
            columns[meaning] = () if mapped[meaning] is None else (meaning,)
            continue
        there = [found[name] for name in names if name in found] or [present[name] for name in names if name in present]
        columns[meaning] = tuple(name for name in there if name not in mapped)
    if columns["chosen"] and columns["rejected"] and "messages" not in mapped:  # which may say all that is needed
        columns["messages"] = tuple(c for c in columns["messages"] if any(_may_be_talk(row.get(c)) for row in first))
    if not any(columns[meaning] for meaning in ("prompt", "messages", "history")) and "prompt" not in mapped:
        columns["prompt"] = tuple(name for name in columns["input"] if folded(name) == "input")
        columns["input"] = tuple(name for name in columns["input"] if name not in columns["prompt"])
    if "label" not in mapped and not (columns["output_A"] and columns["output_B"]):
        values = [row.get(name) for row in first for name in columns["label"]]
        columns["label"] = columns["label"] if any(map(_is_verdict, values)) else ()
    return columns


def pruned(row: Row, rows: Rows) -> Row:
    """The row without the keys that Arrow has added to its structs."""
    return {name: without_nulls(value) for name, value in row.items()} if rows.has_all_keys else row


def folded(name: str) -> str:
    """A name as it is compared with others."""
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def _open_alike(first: Sequence[Row], chosen: Sequence[str], rejected: Sequence[str]) -> bool:
    both = [(row.get(better), row.get(worse)) for row in first for better in chosen[:1] for worse in rejected[:1]]
    texts = [(one, other) for one, other in both if isinstance(one, str) and isinstance(other, str) and one and other]
    return bool(texts) and all(opening(one, other).strip() for one, other in texts)


def _is_said(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_fact(name: str) -> bool:
    return folded(name) in _FACTS or folded(name).endswith(_FACT_ENDINGS)


def _is_verdict(value: object) -> bool:
    """Whether a label speaks of good and bad: 1 and 0 or -1, true and false, or words for these (which are refused)."""
    return isinstance(value, bool) or number(value) in (1, 0, -1) or folded(str(value)) in _VERDICTS


def number(value: object) -> float | None:
    """The finite number that a cell is, or spells."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _may_be_talk(value: object) -> bool:
    return isinstance(value, str) or is_spelled(value)


def _spells(values: list[object]) -> bool:
    """Whether all texts of a column spell conversations, in JSON or Python."""
    said = [value for value in values if _is_said(value)]
    return bool(said) and all(is_spelled(read_stored(str(value))) for value in said)


def is_spelled(value: object) -> bool:
    """Whether a value that a text spells, or a cell holds, is a conversation."""
    inner = value[0] if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], list) else value
    return is_conversation(inner)
