"""The token store: named by its content, built once, whole or not there."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dataloaders import load_examples, store
from dataloaders.example import Drops
from dataloaders.records import RecordKind, records
from dataloaders.store import Recipe, Report, TokenStore, open_store, tokenized
from dataloaders.tokenization import Limits, Tokenized, tokenize
from prospect.config.schema import DatasetConfig, Split, Truncation
from tests import tiny
from tests.model.formats import chat

CHAT = chat("chatml")
FORK = multiprocessing.get_context("fork")


def recipe(file: Path, **changes: object) -> Recipe:
    dataset = DatasetConfig(path=str(file), test_fraction=0.2)
    limits = Limits(200, 100, Truncation.auto)
    return replace(Recipe("pairs", dataset, Split.train, 1, RecordKind.pairs, limits), **changes)  # type: ignore[arg-type]


@pytest.fixture
def made(tmp_path: Path) -> Recipe:
    return recipe(tiny.write_pairs(tmp_path / "pairs.jsonl", 30))


def built(cache: Path) -> list[str]:
    return sorted(p.name for p in (cache / "tokens").iterdir() if p.is_dir())


def directly(made: Recipe) -> list[Tokenized]:
    examples = load_examples(made.name, made.dataset, made.split, made.seed, Drops())
    return [
        item
        for example in examples
        for record in records(example, made.kind)
        for item in tokenize(record, CHAT, made.limits)
    ]


def test_what_is_stored_is_what_was_tokenized(made: Recipe, tmp_path: Path) -> None:
    opened = open_store(made, CHAT, tmp_path)
    wanted = directly(made)
    assert [opened[i] for i in range(len(opened))] == wanted
    assert opened.prompt_keys.tolist() == [item.prompt_key for item in wanted]
    assert opened.report.rows_read == 30
    assert opened.report.records == len(wanted) == opened.report.examples
    assert 15 < len(wanted) < 30


def test_opening_again_tokenizes_nothing(made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_store(made, CHAT, tmp_path)
    monkeypatch.setattr(store, "_build", lambda *a: pytest.fail("built again"))
    again = open_store(made, CHAT, tmp_path)
    assert again.key == first.key
    assert again[3] == first[3]


def test_the_same_content_elsewhere_has_the_same_key(made: Recipe, tmp_path: Path) -> None:
    copy = tiny.write_pairs(tmp_path / "elsewhere" / "copy.jsonl", 30)
    moved = replace(made, dataset=replace(made.dataset, path=str(copy), weight=3.0))
    assert moved.key(CHAT) == made.key(CHAT)


def test_anything_that_decides_the_content_changes_the_key(made: Recipe, tmp_path: Path) -> None:
    other_row = tiny.write_pairs(tmp_path / "other.jsonl", 30)
    other_row.write_text(other_row.read_text().replace("apple", "Apple", 1))
    changed = [
        recipe(other_row),
        replace(made, limits=replace(made.limits, max_length=201)),
        replace(made, limits=replace(made.limits, truncation_mode=Truncation.keep_start)),
        replace(made, kind=RecordKind.labelled),
        replace(made, split=Split.test),
        replace(made, dataset=replace(made.dataset, test_fraction=0.3)),
    ]
    keys = [made.key(CHAT), made.key(chat("llama3")), made.key(chat("chatml", adds_bos=True))]
    keys += [each.key(CHAT) for each in changed]
    assert len(set(keys)) == len(keys)


def test_a_build_that_fails_leaves_nothing(made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "trainable", fail)
        with pytest.raises(OSError, match="no space"):
            open_store(made, CHAT, tmp_path)
    assert built(tmp_path) == []
    assert len(open_store(made, CHAT, tmp_path)) > 0


def test_a_build_that_is_killed_is_built_anew(made: Recipe, tmp_path: Path) -> None:
    def build() -> None:
        Path.rename = lambda *a: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign, assignment]
        open_store(made, CHAT, tmp_path)

    child = FORK.Process(target=build)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    (leftover,) = built(tmp_path)
    assert leftover.endswith(".tmp")
    opened = open_store(made, CHAT, tmp_path)
    assert [opened[i] for i in range(len(opened))] == directly(made)
    assert built(tmp_path) == [opened.key]


def test_two_processes_at_once_build_once(made: Recipe, tmp_path: Path) -> None:
    build = store._build
    builds = tmp_path / "builds"

    def open_slowly() -> None:
        def slow(*args) -> None:
            with builds.open("a") as file:
                file.write("x")
            time.sleep(0.3)
            build(*args)

        setattr(store, "_build", slow)  # noqa: B010
        assert len(open_store(made, CHAT, tmp_path)) > 0

    children = [FORK.Process(target=open_slowly) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert builds.read_text() == "x"


def test_several_processes_tokenize_as_one_does(tmp_path: Path) -> None:
    made = recipe(tiny.write_pairs(tmp_path / "many.jsonl", 800), limits=Limits(60, 30, Truncation.auto))
    one, two = Report(), Report()
    assert list(tokenized(made, CHAT, two, processes=2)) == list(tokenized(made, CHAT, one, processes=1))
    assert one == two
    assert one.prompts_cut > 0
    assert one.answers_cut > 0


def test_records_without_a_trained_token_are_counted(tmp_path: Path) -> None:
    made = recipe(tiny.write_pairs(tmp_path / "pairs.jsonl", 30), limits=Limits(20, 20, Truncation.keep_start))
    opened = open_store(made, CHAT, tmp_path)
    lost = opened.report.dropped["records without a trained token after truncation"]
    assert lost > 0
    assert len(opened) == opened.report.examples - lost
    assert f"{lost} records without a trained token" in opened.report.line()


def test_an_empty_store_opens(made: Recipe, tmp_path: Path) -> None:
    opened = open_store(replace(made, limits=Limits(1, 1, Truncation.auto)), CHAT, tmp_path)
    assert isinstance(opened, TokenStore)
    assert len(opened) == 0
    assert len(opened.desirable) == 0
