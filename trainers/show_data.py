"""``mode=data``: what a trainer would see, written out and summed up; trains nothing."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from dataloaders import load_examples
from dataloaders.example import Drops
from dataloaders.loader import no_record
from dataloaders.packing import Sequence, sequences
from dataloaders.records import Record, RecordKind
from dataloaders.store import Report
from dataloaders.tokenization import Limits, Tokenized, trainable
from prospect.checkpoint.run import Run
from prospect.config.schema import Config
from prospect.logs import log_to
from prospect.model.load import origin_of
from prospect.model.template import ChatFormat
from prospect.progress import progress
from trainers import make_trainer
from trainers.setup import prepare_text

_EXAMPLES = 3
_PERCENTILES = (50, 90, 95, 99, 100)


def show_data(config: Config) -> int:
    """Write one JSON line a record to ``out`` and print counts, lengths and three examples; the exit code."""
    log_to(None, rank=0)
    trainer = make_trainer(config)
    text = prepare_text(config, origin_of(config), trainer.control_tokens, Run.of(config).chat_day())
    limits = Limits.of(config)
    with ExitStack() as stack:
        out = stack.enter_context(_whole(Path(config.out))) if config.out else None
        for name in config.datasets:
            seen = _Seen()
            bar = stack.enter_context(progress(f"reading {name} ({config.split})", None, "records"))
            for record, item in _records(config, name, trainer.records, text.chat, limits, seen.report):
                seen.add(item)
                bar.advance(1)
                if out is not None:
                    out.write(json.dumps(_row(record, item, text.chat), ensure_ascii=False) + "\n")
            if not seen.report.records:
                raise no_record(config, name, trainer.records, seen.report)
            seen.show(name, text.chat)
    if config.out:
        print(f"written: {config.out}")
    return 0


@contextmanager
def _whole(file: Path) -> Iterator[IO[str]]:
    """A file that appears under its name once all of it is written."""
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("w", encoding="utf-8") as out:
            yield out
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _records(
    config: Config, name: str, kind: RecordKind, chat: ChatFormat, limits: Limits, report: Report
) -> Iterator[tuple[Record, Tokenized]]:
    drops = Drops()
    for example in load_examples(name, config.datasets[name], config.split, config.seed, drops):
        report.examples += 1
        for record, item in trainable(example, kind, chat, limits, drops):
            report.count(item)
            yield record, item
    report.close(drops)


def _row(record: Record, item: Tokenized, chat: ChatFormat) -> dict[str, Any]:
    """A record as the model sees it: rendered texts, then ids and the mask of trained tokens of each whole sequence.

    ``prompt`` is what comes before the first trained token. What follows it is trained to its end; where several turns
    are trained, ``completion`` has the ones between as well, and ``mask`` says which tokens are trained.
    """

    def text(ids: Seq[int]) -> str:
        return str(chat.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    row: dict[str, Any] = {"id": item.id, "dataset": record.dataset}
    items = [(s, *s.arrays()) for s in sequences(item)]
    ids = [[int(i) for i in ids] for _, ids, _ in items]
    masks = [np.isin(np.arange(len(s)), trained).astype(int).tolist() for s, _, trained in items]
    if not record.prompt:  # a document, or a piece of one
        return row | {"text": text(ids[0]), "ids": ids[0], "mask": masks[0]}
    row |= {"prompt": text(item.prompt_ids)}
    if len(record.answers) == 2:
        row |= {"chosen": text(item.answer_ids[0]), "rejected": text(item.answer_ids[1])}
        row |= {"chosen_ids": ids[0], "chosen_mask": masks[0], "rejected_ids": ids[1], "rejected_mask": masks[1]}
        return row
    row |= {"completion": text(item.answer_ids[0]), "label": item.roles[0] == 0}
    return row | {"ids": ids[0], "mask": masks[0]}


@dataclass(slots=True)
class _Seen:
    """What the summary of one data set needs."""

    report: Report = field(default_factory=Report)
    prompts: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    desirable: int = 0
    undesirable: int = 0
    first: list[Tokenized] = field(default_factory=list)

    def add(self, item: Tokenized) -> None:
        self.prompts.append(len(item.prompt_ids))
        self.answers.extend(len(ids) for ids in item.answer_ids)
        self.desirable += item.roles.count(0)
        self.undesirable += item.roles.count(1)
        if len(self.first) < _EXAMPLES:
            self.first.append(item)

    def show(self, name: str, chat: ChatFormat) -> None:
        print(f"\n{name}: {self.report.line()}")
        for remark in self.report.remarks():
            print(f"  {remark}")
        if any(self.prompts):
            print(f"  {self.desirable} chosen or desirable answers, {self.undesirable} rejected or undesirable")
        for what, lengths in (("prompt", self.prompts), ("answer", self.answers)):
            if any(lengths):
                values = ", ".join(f"{p}%: {int(np.percentile(lengths, p))}" for p in _PERCENTILES)
                print(f"  {what} tokens: {values}")
        for item in self.first:
            for sequence in sequences(item):
                print(f"\n[{item.id}: {sequence.role.name}; trained tokens are {_style()[2]}]")
                print(_painted(sequence, chat))


def _style() -> tuple[str, str, str]:
    """How trained tokens begin and end on this output, and the word for it."""
    return ("\x1b[32m", "\x1b[0m", "green") if sys.stdout.isatty() else ("⟦", "⟧", "in ⟦brackets⟧")


def _painted(sequence: Sequence, chat: ChatFormat) -> str:
    ids, trained = sequence.arrays()
    begin, end, _ = _style()
    text, on = "", np.isin(np.arange(len(ids)), trained)
    cuts = [0, *(int(i) + 1 for i in np.flatnonzero(np.diff(on.astype(int)))), len(ids)]
    for start, stop in itertools.pairwise(cuts):
        piece = str(chat.tokenizer.decode(ids[start:stop].tolist(), clean_up_tokenization_spaces=False))
        piece = "".join(c for c in piece if c.isprintable() or c in "\n\t")  # no escape codes from the data
        text += f"{begin}{piece}{end}" if on[start] else piece
    return text
