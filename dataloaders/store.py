"""The token store: each data set is tokenized once, by all cores, and read back memory-mapped.

A store is a folder named by the hash of everything that decides its content (the rows, the source's rules, tokenizer,
template, lengths), so nothing stale is ever read and runs of a sweep share one. It is built beside its place and
renamed into it: a killed build leaves nothing that looks whole.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataloaders import fingerprint, load_examples
from dataloaders.example import Drops, Example
from dataloaders.records import RecordKind
from dataloaders.tokenization import Limits, Tokenized, trainable
from prospect.config.schema import DatasetConfig, Split
from prospect.locks import locked
from prospect.model.template import ChatFormat
from prospect.progress import progress

VERSION = 4  # raise when the same inputs come to give other tokens, or these lie otherwise
_CHUNK = 256  # examples a worker takes at a time
_ROWS = 1024  # records of one Arrow batch, all but the last
_ALONE = 2 * _CHUNK  # fewer examples than this are not worth a second process

_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "dataset": pa.string(),
        "prompt_key": pa.int64(),
        "prompt_ids": pa.list_(pa.int32()),
        "answer_ids": pa.list_(pa.list_(pa.int32())),
        "masks": pa.list_(pa.list_(pa.bool_())),
        "roles": pa.list_(pa.int8()),
        "prompt_cut": pa.int32(),
        "answers_cut": pa.int32(),
        "apart": pa.int32(),
        "scores": pa.list_(pa.float64()),
        "length": pa.int32(),
        "notes": pa.list_(pa.string()),
    }
)


_COLUMNS = {"prompt_keys": np.int64, "ids_hash": np.uint64, "desirable": np.bool_, "graded": np.bool_}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what one data set becomes."""

    name: str
    dataset: DatasetConfig
    split: Split
    seed: int
    kind: RecordKind
    limits: Limits

    def key(self, chat: ChatFormat) -> str:
        """Content hash of the inputs and the rules."""
        parts = {
            "version": VERSION,
            "rows": fingerprint(self.name, self.dataset, self.split, self.seed),
            "chat": chat.digest_parts(),
            "limits": asdict(self.limits),
            "kind": self.kind,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(slots=True)
class Report:
    """What happened to the rows of one data set on their way to token ids."""

    rows_read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)  # of what is kept, though not all of it
    places: dict[str, list[str]] = field(default_factory=dict)  # the first rows of what is dropped or noted
    examples: int = 0
    records: int = 0
    answers: int = 0
    prompts_cut: int = 0
    answers_cut: int = 0
    apart: int = 0
    longest: int = 0  # tokens of a record before it was cut

    def count(self, item: Tokenized) -> None:
        """Add one record."""
        self.records += 1
        self.answers += len(item.answer_ids)
        self.prompts_cut += item.prompt_cut > 0
        self.answers_cut += item.answers_cut
        self.apart += item.apart
        self.longest = max(self.longest, item.length)

    def close(self, drops: Drops) -> None:
        """Take over what the rows' reading and their tokenizing have counted."""
        self.rows_read, self.dropped, self.notes = drops.rows_read, dict(drops.reasons), dict(drops.notes)
        self.places = {what: [Path(place).name for place in places] for what, places in drops.places.items()}

    def remarks(self) -> list[str]:
        """What a user must know beside the counts, a line each: what of the rows is not read or not trained."""
        said = [f"{count} × {note}{self._first(note)}" for note, count in sorted(self.notes.items())]
        advice = f"the longest record has {self.longest} tokens: raise model.max_length (and model.max_prompt_length)"
        if self.records and self.prompts_cut == self.records:
            said.append(f"all {self.records} prompts are truncated; {advice}")
        if self.answers and self.answers_cut == self.answers:
            said.append(f"all {self.answers} answers are truncated, none is trained to its end; {advice}")
        return said

    def _first(self, what: str) -> str:
        places = self.places.get(what)
        return f" (first: {', '.join(places)})" if places else ""

    def lost(self) -> str:
        """What was dropped, by reason."""
        return ", ".join(f"{n} {reason}{self._first(reason)}" for reason, n in sorted(self.dropped.items())) or "none"

    def line(self) -> str:
        """The report in one line, for the log."""
        return (
            f"{self.rows_read} rows read, dropped: {self.lost()}; {self.records} records, "
            f"{self.prompts_cut} prompts and {self.answers_cut} answers truncated, {self.apart} tokenized apart"
        )


class TokenStore:
    """Records of one data set and split as memory-mapped token ids; what orders are made of, as mapped columns."""

    def __init__(self, folder: Path) -> None:
        self.key = folder.name
        self.report = Report(**json.loads((folder / "report.json").read_text()))
        self.reader = pa.ipc.open_file(pa.memory_map(str(folder / "tokens.arrow")))
        columns = [_mapped(folder / f"{name}.bin", kind, self.report.records) for name, kind in _COLUMNS.items()]
        self.prompt_keys, self.ids_hash, self.desirable, self.graded = columns

    def __len__(self) -> int:
        return self.report.records

    def __getitem__(self, index: int) -> Tokenized:
        batch = self.reader.get_batch(index // _ROWS)
        return Tokenized(**batch.slice(index % _ROWS, 1).to_pylist()[0])


def _mapped(file: Path, kind: type[np.generic], count: int) -> NDArray[Any]:
    return np.memmap(file, kind, mode="r", shape=(count,)) if count else np.empty(0, kind)


def open_store(recipe: Recipe, chat: ChatFormat, cache: Path) -> TokenStore:
    """The store of a recipe, built now if no earlier run has; safe for any number of processes at once."""
    folder = cache / "tokens" / f"{recipe.name}-{recipe.split}-{recipe.key(chat)}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _build(recipe, chat, folder)
    return TokenStore(folder)


def tokenized(recipe: Recipe, chat: ChatFormat, report: Report, processes: int | None = None) -> Iterator[Tokenized]:
    """All records of a recipe in the source's order, by as many processes as there are cores; counts into report."""
    drops = Drops()
    examples = load_examples(recipe.name, recipe.dataset, recipe.split, recipe.seed, drops)
    first = list(islice(examples, _ALONE))
    report.examples = len(first)
    workers = (os.cpu_count() or 1) if processes is None else processes
    task = _Task(chat, recipe.kind, recipe.limits)

    def counted() -> Iterator[Example]:
        for example in examples:
            report.examples += 1
            yield example

    def run(chunks: Iterator[tuple[list[Tokenized], Drops]]) -> Iterator[Tokenized]:
        for items, lost in chunks:
            drops.add(lost)
            for item in items:
                report.count(item)
                yield item

    if len(first) < _ALONE or workers == 1:
        yield from run(map(task, _chunks(first)))
        yield from run(map(task, _chunks(counted())))
    else:
        with multiprocessing.get_context("fork").Pool(workers, initializer=_begin_worker) as pool:
            yield from run(pool.imap(task, _chunks(first)))
            yield from run(pool.imap(task, _chunks(counted())))
            pool.close()
            pool.join()
    report.close(drops)


@dataclass(frozen=True, slots=True)
class _Task:
    """What a worker does with a chunk of examples."""

    chat: ChatFormat
    kind: RecordKind
    limits: Limits

    def __call__(self, examples: list[Example]) -> tuple[list[Tokenized], Drops]:
        lost = Drops()
        found = [x for example in examples for x in trainable(example, self.kind, self.chat, self.limits, lost)]
        return [item for _, item in found], lost


def _begin_worker() -> None:
    """A worker ends when its pool does, whatever handlers it has inherited, and leaves threads to its siblings."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _chunks(items: Iterable[Example]) -> Iterator[list[Example]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _build(recipe: Recipe, chat: ChatFormat, folder: Path) -> None:
    """Build a store beside its place, while its lock is held, and move it there."""
    for leftover in folder.parent.glob(f"{folder.name}.*.tmp"):  # of a build that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    building = folder.with_suffix(f".{os.getpid()}.tmp")
    building.mkdir(parents=True)
    try:
        report = _write(recipe, chat, building / "tokens.arrow")
        (building / "report.json").write_text(json.dumps(asdict(report)))
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(recipe: Recipe, chat: ChatFormat, file: Path) -> Report:
    report = Report()
    with (
        pa.OSFile(str(file), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA) as writer,
        progress(f"tokenizing {recipe.name} ({recipe.split})", None, "records") as bar,
    ):
        items = tokenized(recipe, chat, report)
        while some := list(islice(items, _ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist([item.row() for item in some], schema=_SCHEMA))
            append_columns(file.parent, some)
            bar.advance(len(some))
    return report


def append_columns(folder: Path, items: Sequence[Tokenized]) -> None:
    """Add records to the columns of a store that is being built."""
    columns = (
        [item.prompt_key for item in items],
        [_hash64(item.id) for item in items],
        [item.roles[0] == 0 for item in items],
        [bool(item.scores) for item in items],
    )
    for (name, kind), values in zip(_COLUMNS.items(), columns, strict=True):
        with (folder / f"{name}.bin").open("ab") as file:
            file.write(np.array(values, kind).data)


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
