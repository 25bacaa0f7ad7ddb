"""The data of a run: token stores of all data sets, the order of training, and the packed batches of a step."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataloaders import load_examples
from dataloaders.example import Drops
from dataloaders.order import Indices, Order, Partner, derangement, nested_subset
from dataloaders.packing import Sequence, length, mismatched, pack, sequences, split_by_budget
from dataloaders.records import RecordKind, records
from dataloaders.store import Recipe, Report, TokenStore, open_store
from dataloaders.tokenization import Limits, Tokenized
from prospect.batch import Batch
from prospect.config.schema import Config, Split
from prospect.errors import UserError
from prospect.model.template import ChatFormat

EVALUATION = 1 << 40  # number of evaluation's first chunk, where training's first step is 0: no seed is shared


@dataclass(frozen=True, slots=True)
class Stores:
    """Several token stores seen as one list of records."""

    names: tuple[str, ...]
    stores: tuple[TokenStore, ...]

    starts: NDArray[np.int64]  # global index of each store's first record, and the total

    @classmethod
    def of(cls, stores: dict[str, TokenStore]) -> Stores:
        """Stores by data set name."""
        return cls(tuple(stores), tuple(stores.values()), np.cumsum([0, *map(len, stores.values())]))

    def __len__(self) -> int:
        return sum(len(store) for store in self.stores)

    def __getitem__(self, index: int) -> Tokenized:
        which = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.stores[which][int(index - self.starts[which])]

    def joined(self, column: str) -> NDArray[Any]:
        """One array over all records: ``prompt_keys``, ``desirable``, ``graded`` or ``ids_hash``; mapped if one."""
        columns = [getattr(store, column) for store in self.stores]
        return columns[0] if len(columns) == 1 else np.concatenate(columns)


@dataclass(frozen=True, slots=True)
class Data:
    """What a trainer asks for batches. Steps count from 0."""

    train: Stores
    evaluation: Stores
    order: Order
    config: Config
    n_examples: int
    rewards: Mapping[str, float] | None = None  # by record: a reward model's, in the place of the data's own scores

    @property
    def n_steps(self) -> int:
        """Optimizer steps of the run; the last one may hold fewer records."""
        return -(-self.n_examples // self.config.model.batch_size)

    def shown(self) -> Indices:
        """The records that training shows, each once, ascending."""
        seen, length = np.zeros(len(self.train), dtype=bool), self.order.epoch_length
        for start in range(0, self.n_examples, length):
            seen[self.order.take(start, min(length, self.n_examples - start))] = True
        return np.flatnonzero(seen)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Content key of each token store."""
        stores = {"train": self.train, "evaluation": self.evaluation}
        return {f"{n}/{part}": s.key for part, x in stores.items() for n, s in zip(x.names, x.stores, strict=True)}

    def kinds(self) -> tuple[int, int]:
        """How many desirable and how many undesirable records an epoch of training shows."""
        flags = self.train.joined("desirable")[self.order.epoch(0)]
        return int(flags.sum()), int((~flags).sum())

    def step(self, number: int) -> list[Tokenized]:
        """All records of one optimizer step, over all processes."""
        size = self.config.model.batch_size
        start = number * size
        indices = self.order.take(start, min(size, self.n_examples - start))
        return [self.train[int(i)] for i in indices]

    def eval_chunks(self) -> dict[str, list[list[Tokenized]]]:
        """The evaluation records by data set, the same ones each time, in chunks as large as an optimizer step.

        Chunks are numbered through from EVALUATION.
        """
        hashes = self.evaluation.joined("ids_hash")
        chosen = np.argsort(hashes, kind="stable")[: self.config.n_eval_examples]
        size = self.config.model.batch_size
        found: dict[str, list[list[Tokenized]]] = {}
        for record in (self.evaluation[int(i)] for i in np.sort(chosen)):
            chunks = found.setdefault(record.dataset, [[]])
            if len(chunks[-1]) == size:
                chunks.append([])
            chunks[-1].append(record)
        return found

    def mismatches(
        self, records: Seq[Tokenized], number: int, partner: Partner = Partner.drawn
    ) -> list[Sequence | None]:
        """For each record of a step its prompt with the answer to another prompt of it; None where there is none."""
        keys = np.array([record.prompt_key for record in records], dtype=np.int64)
        partners = derangement(keys, self.config.seed, number)
        if partner is not Partner.drawn:  # whatever its prompt
            turn = -1 if partner is Partner.following else 1
            partners = np.roll(np.arange(len(records)), turn) if len(records) > 1 else np.array([-1])
        limit = self.config.model.max_length
        return [
            None if j < 0 else mismatched(record, records[j], limit)
            for record, j in zip(records, partners.tolist(), strict=True)
        ]

    def microbatches(self, records: Seq[Tokenized], share: bool = False, prompts: bool = False) -> list[Batch]:
        """Records as packed batches within the token budget, in order; none is split. The rest as ``pack`` has it."""
        model = self.config.model
        sizes = [length(record, share) for record in records]
        groups = split_by_budget(sizes, model.budget, model.gradient_accumulation_steps)
        return [pack([s for i in group for s in self._graded(records[i])], share, prompts) for group in groups if group]

    def _graded(self, record: Tokenized) -> list[Sequence]:
        items = sequences(record)
        return items if self.rewards is None else [replace(x, grade=self.rewards[x.id]) for x in items]

    def packed(self, items: Seq[Sequence]) -> list[Batch]:
        """Single sequences as packed batches within the token budget."""
        groups = split_by_budget([len(x) for x in items], self.config.model.budget)
        return [pack([items[i] for i in group]) for group in groups]


def load(config: Config, kind: RecordKind, balanced: bool, chat: ChatFormat, evaluating: bool = False) -> Data:
    """Open (or build) the token stores of a run.

    Raises:
        UserError: nothing to train on, too little for one step, or a fraction that the records have no use for.
    """
    cache = Path(config.cache_dir) / ".cache"
    limits = Limits.of(config)

    def open_all(split: Split) -> Stores:
        stores = {
            name: open_store(Recipe(name, dataset, split, config.seed, kind, limits), chat, cache)
            for name, dataset in config.datasets.items()
        }
        return Stores.of(stores)

    evaluation = open_all(config.split if evaluating else config.eval_split)
    train = evaluation if evaluating else open_all(Split.train)
    for name, store in zip(train.names, train.stores, strict=True):
        if not len(store):
            raise no_record(config, name, kind, store.report)
    order = Order(
        pools=_pools(config, kind, train),
        weights=[config.datasets[name].weight for name in train.names],
        seed=config.seed,
        desirable=train.joined("desirable") if balanced else None,
    )
    if balanced and not evaluating and not order.epoch_length:
        only = "desirable" if train.joined("desirable").any() else "undesirable"
        raise UserError(
            f"datasets: all {len(train)} records are {only}; loss={config.loss.name} takes as many of the other kind"
        )
    n_examples = config.n_examples or (config.n_epochs or 1) * order.epoch_length
    if not evaluating and n_examples < config.model.batch_size:
        raise UserError(
            f"model.batch_size: one step needs {config.model.batch_size} records, the run has {n_examples} "
            f"(n_epochs={config.n_epochs}, {order.epoch_length} records an epoch)"
        )
    return Data(train, evaluation, order, config, n_examples)


def one_sided(kinds: tuple[int, int], kind: RecordKind, loss: str) -> str | None:
    """The warning that all labelled answers of an epoch are of one kind; ``kinds``: desirable and undesirable ones."""
    desirable, undesirable = kinds
    if kind is not RecordKind.labelled or bool(desirable) == bool(undesirable):
        return None
    if desirable:
        return (
            f"all {desirable} labelled answers are desirable: loss={loss} learns what tells the two kinds apart; "
            "add undesirable ones (label: false), or take loss=sft, which imitates the desirable"
        )
    return (
        f"all {undesirable} labelled answers are undesirable: loss={loss} can but move away from them, towards "
        "anything; add desirable ones (label: true)"
    )


_WANTED = {  # with a loss that takes it; of what an example gives, the first says what it is for
    RecordKind.texts: ("a text", "pt"),
    RecordKind.pairs: ("a pair", "dpo"),
    RecordKind.labelled: ("a labelled answer", "kto"),
    RecordKind.answers: ("an answer to imitate", "sft"),
}


def no_record(config: Config, name: str, kind: RecordKind, report: Report) -> UserError:
    """The error that a data set has nothing for this kind of loss: why all was dropped, or what it is for instead."""
    example, examples = (
        next(load_examples(name, config.datasets[name], Split.all, config.seed, Drops())),
        report.examples,
    )
    if any(records(example, kind)):
        return UserError(f"datasets.{name}: {examples} examples, but nothing is left to train on: {report.lost()}")
    has = next((it for other, it in _WANTED.items() if any(records(example, other))), None)
    unread = [note for note in report.notes if note.startswith("not read")]
    alone = "; ".join(["its first one is a prompt alone", *unread[:1]])
    hint = f"its first one holds {has[0]}: loss={has[1]} takes that" if has else alone
    return UserError(f"datasets.{name}: {examples} examples, but none gives {_WANTED[kind][0]} ({hint})")


def _pools(config: Config, kind: RecordKind, train: Stores) -> list[NDArray[np.int64]]:
    fractions = (config.frac_unique_desirable, config.frac_unique_undesirable)
    if fractions != (1.0, 1.0) and kind is not RecordKind.labelled:
        raise UserError(f"frac_unique_desirable: has no meaning for loss={config.loss.name}, which takes {kind}")
    pools = []
    for start, store in zip(train.starts, train.stores, strict=False):
        kept = [np.arange(len(store))]
        if fractions != (1.0, 1.0):
            kinds = [np.flatnonzero(store.desirable == flag) for flag in (True, False)]
            kept = [m[nested_subset(store.ids_hash[m], f)] for m, f in zip(kinds, fractions, strict=True)]
        pools.append(np.sort(np.concatenate(kept)) + start)
    return pools
