"""Data sets: the table of sources, and the examples of one configured data set.

A new source is one generator in dataloaders/sources/ and one line in SOURCES. Data in a known shape need no source:
``datasets.files.path=<file>`` reads them.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from dataloaders import example, repeats
from dataloaders.example import Drops, Example
from dataloaders.repeats import Repeats
from dataloaders.sources import (
    alpacaeval,
    columns,
    demo,
    dialogue,
    files,
    given,
    hh,
    json_table,
    mtbench,
    oasst,
    parts,
    rows,
    shp,
    source,
    spans,
    text_table,
    ultrabin,
)
from dataloaders.sources.parts import is_repository, open_parts
from dataloaders.sources.rows import Hub
from dataloaders.sources.source import Source
from prospect import conversation, message_forms
from prospect import demo as demo_rules
from prospect.config.schema import DatasetConfig, Split
from prospect.errors import UserError, nearest

_TRAIN_TEST = {Split.train: "train", Split.test: "test"}
_PAIR = ("chosen", "rejected")

SOURCES: Mapping[str, Source] = {
    "hh": Source(hh.read, _PAIR, hub=Hub("Anthropic/hh-rlhf"), splits=_TRAIN_TEST),
    "hh_helpful": Source(hh.read, _PAIR, hub=Hub("Anthropic/hh-rlhf", data_dir="helpful-base"), splits=_TRAIN_TEST),
    "hh_harmless": Source(hh.read, _PAIR, hub=Hub("Anthropic/hh-rlhf", data_dir="harmless-base"), splits=_TRAIN_TEST),
    "shp": Source(
        *(shp.read, shp.REQUIRED, ("domain",), Hub("stanfordnlp/SHP")),
        splits={Split.train: "train", Split.validation: "validation", Split.test: "test"},
    ),
    "oasst": Source(
        *(oasst.read, oasst.REQUIRED, (), Hub("OpenAssistant/oasst1")),
        splits={Split.train: "train", Split.test: "validation"},  # it has no third part: as in the original
    ),
    "ultrabin": Source(
        *(ultrabin.read, ("prompt", *_PAIR), (), Hub("HuggingFaceH4/ultrafeedback_binarized")),
        splits={Split.train: "train_prefs", Split.test: "test_prefs"},
    ),
    "alpacaeval": Source(
        *(alpacaeval.read, ("instruction", "output"), ("dataset",)),
        hub=Hub("tatsu-lab/alpaca_eval", data_file="alpaca_eval.json"),
        splits={Split.test: "eval"},
    ),
    "mtbench": Source(mtbench.read, mtbench.REQUIRED, splits={Split.test: "question"}),
    "files": Source(files.read, optional=files.COLUMNS, rules=(columns, dialogue, given)),
    "demo": Source(demo.read, generate=demo_rules.rows, rules=(demo_rules,)),
}

# Modules that decide the examples of every source, beside the source's own: fingerprints follow their code.
_SHARED = (conversation, example, json_table, parts, repeats, rows, source, spans, text_table, message_forms)


def load_examples(name: str, config: DatasetConfig, split: Split, seed: int, drops: Drops) -> Iterator[Example]:
    """Examples of one part of the data set ``datasets.<name>``, in the order of its rows.

    ``drops`` counts all rows that were read, also those of the other part of a file that serves train and test both.
    UserError for wrong files, columns and values, and where no example is left.
    """
    reader, told, yielded = _source(name, config), Repeats(name), False
    for part in open_parts(name, reader, config, split, seed):
        drops.rows_read += len(part.rows)
        for found in filter(part.has, reader.read(part.rows, part.split, seed, drops)):
            yielded = True
            identity, repetition = told.add(found)
            if repetition is not None:
                drops.note(repetition, found.place)
            yield replace(found, id=identity, dataset=name)
    if not yielded:
        why = ", ".join(
            f"{count} {reason} (first: {', '.join(drops.places[reason]) or 'not known'})"
            for reason, count in drops.reasons.most_common()
        )
        hint = why or f"test_fraction is {config.test_fraction}"
        raise UserError(f"datasets.{name}: none of the {drops.rows_read} rows is left for split={split} ({hint})")


def fingerprint(name: str, config: DatasetConfig, split: Split, seed: int) -> str:
    """A key of the examples: it changes with the files' bytes, the hub revision, the options, and the code that reads.

    Where the files lie and how the data set is weighted changes nothing.
    """
    reader = _source(name, config)
    parts = open_parts(name, reader, config, split, seed)
    modules = (*_SHARED, inspect.getmodule(reader.read), *reader.rules)
    facts = {
        "dataset": [name, config.source, config.columns, seed],
        "parts": [[part.rows.key, part.split, part.share, part.share and part.test_fraction] for part in parts],
        "code": [inspect.getsource(module) for module in modules if module],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def hub_ids(datasets: Mapping[str, DatasetConfig]) -> tuple[str, ...]:
    """The repositories on the hub that data sets come from; files of this machine are not among them."""
    found = []
    for config in datasets.values():
        known = SOURCES[config.source].hub if config.source in SOURCES else None
        if config.path is None:
            found += [known.repo] if known else []
        elif isinstance(config.path, str) and is_repository(config.path):
            found.append(config.path)
    return tuple(sorted(set(found)))


def _source(name: str, config: DatasetConfig) -> Source:
    if config.source not in SOURCES:
        hint = nearest(config.source, SOURCES) or f"; there are {', '.join(SOURCES)}"
        raise UserError(f"datasets.{name}.source: there is no source {config.source}{hint}")
    return SOURCES[config.source]
