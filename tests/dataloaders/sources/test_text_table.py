"""Texts from files: lines of .txt, and rows with a `text` column of every format."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataloaders import load_examples
from dataloaders.example import Drops, Example
from dataloaders.sources import parts
from dataloaders.sources.text_table import TextTable
from prospect.config.schema import DatasetConfig, Split
from prospect.errors import UserError
from tests.planted import plant

TEXTS = ["One line is a document.", "Der zweite, mit Umlauten: äöü", '{"looks": "like JSON"}', "the last"]


def read(file: Path, split: Split = Split.all) -> list[Example]:
    config = DatasetConfig(path=str(file), test_fraction=0.3)
    return list(load_examples("files", config, split, 1, Drops()))


def written(folder: Path, suffix: str) -> Path:
    file = folder / f"texts{suffix}"
    if suffix == ".txt":
        file.write_text("\n\n".join(TEXTS) + "\n", encoding="utf-8")
    if suffix == ".txt.gz":
        file.write_bytes(gzip.compress("\r\n".join(TEXTS).encode()))
    if suffix == ".jsonl":
        file.write_text("".join(json.dumps({"text": text, "url": "x"}) + "\n" for text in TEXTS))
    if suffix == ".json":
        file.write_text(json.dumps([{"text": text} for text in TEXTS]))
    if suffix == ".parquet":
        pq.write_table(pa.table({"text": TEXTS}), file)
    if suffix == ".csv":
        with file.open("w", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows([["text"], *([text] for text in TEXTS)])
    return file


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".jsonl", ".json", ".parquet", ".csv"])
def test_every_format_gives_the_same_documents(suffix: str, tmp_path: Path) -> None:
    found = read(written(tmp_path, suffix))
    assert [example.text for example in found] == TEXTS
    assert all((x.prompt, x.answers, x.imitate) == ((), (), None) for x in found)
    assert len({example.id for example in found}) == len(TEXTS)


def test_documents_are_split_by_their_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "many.txt"
    file.write_text("".join(f"document number {i}\n" for i in range(200)))
    train, test = read(file, Split.train), read(file, Split.test)
    assert 30 < len(test) < 90
    assert {x.text for x in train}.isdisjoint(x.text for x in test)
    assert len(train) + len(test) == 200
    plant(monkeypatch, parts._position, "opening if example.text is None else example.text", "opening")
    with pytest.raises((AssertionError, UserError)):
        assert 30 < len(read(file, Split.test)) < 90


def test_empty_texts_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "red"}\n{"text": " "}\n{"text": null}\n{"text": 3}\n')
    drops = Drops()
    config = DatasetConfig(path=str(file))
    assert [x.text for x in load_examples("files", config, Split.all, 1, drops)] == ["red"]
    assert dict(drops.reasons) == {"empty text": 1, "no `text`": 1, "`text` is not text": 1}


def test_a_mapped_column(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"content": "red"}\n')
    config = DatasetConfig(path=str(file), columns={"text": "content"})
    assert [x.text for x in load_examples("files", config, Split.all, 1, Drops())] == ["red"]


def test_places_are_lines(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("one\n\n  \nfour\n")
    table = TextTable(file)
    assert [row["text"] for row in table] == ["one", "four"]
    assert table.place(1) == f"{file}:4"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes(b"one\ntwo \xff\n")
    with pytest.raises(UserError, match=r"texts.txt:2: byte 8 of the file is not UTF-8"):
        read(file)
    file.write_text(" \n")
    with pytest.raises(UserError, match="holds nothing but white space"):
        read(file)
