"""Files where the name of a data set stands: each becomes a data set that the source ``files`` reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from prospect.config.compose import composer, typed_keys
from prospect.config.identity import default_name
from prospect.config.own_files import name_of, own_files
from prospect.config.schema import Config, DatasetConfig
from prospect.config.typed import without_loss
from prospect.errors import UserError
from tests.planted import plant

FILES = ("pairs.jsonl", "2024.json", "a b.jsonl.gz", "hh.jsonl", "data/pairs.jsonl", "data/more.jsonl", "plain")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in FILES:
        (tmp_path / name).write_text("{}")


def composed(*words: str) -> tuple[Config, str]:
    """The configuration of a command, and its default name."""
    with composer() as hydra:
        said = hydra.words(["loss=dpo", "model=tiny", *words])
        return without_loss(hydra.compose(said).values, typed_keys(said)), default_name(*hydra.name_parts(said))


@pytest.mark.parametrize(
    ("chosen", "paths", "name"),
    [
        ("[ultrabin,pairs.jsonl]", {"ultrabin": None, "pairs": "pairs.jsonl"}, "pairs-ultrabin"),
        ("[pairs.jsonl,ultrabin]", {"ultrabin": None, "pairs": "pairs.jsonl"}, "pairs-ultrabin"),
        ("pairs.jsonl", {"pairs": "pairs.jsonl"}, "pairs"),
        ("[./plain]", {"plain": "plain"}, "plain"),
        ("[hh,hh.jsonl]", {"hh": None, "hh_2": "hh.jsonl"}, "hh-hh_2"),
        ("[demo,2024.json,'a b.jsonl.gz']", {"demo": None, "file_2024": "2024.json", "a_b": "a b.jsonl.gz"}, None),
        ("[pairs.jsonl,data/pairs.jsonl]", {"pairs": "pairs.jsonl", "pairs_2": "data/pairs.jsonl"}, None),
        ("[demo,data/*.jsonl]", {"demo": None, "data": "data/*.jsonl"}, None),
    ],
)
def test_a_file_is_a_data_set_of_its_name(chosen: str, paths: dict[str, str | None], name: str | None) -> None:
    config, default = composed(f"datasets={chosen}")
    assert {key: dataset.path for key, dataset in config.datasets.items()} == paths
    assert {dataset.source for dataset in config.datasets.values() if dataset.path} == {"files"}
    assert name is None or default == f"dpo_tiny_datasets-{name}"


def test_the_folder_of_a_file_is_in_the_runs_name() -> None:
    assert "path-data-pairs" in composed("datasets=[data/pairs.jsonl]")[1]
    assert (
        composed("datasets=[pairs.jsonl]", "datasets.pairs.weight=2")[1]
        == "dpo_tiny_datasets-pairs_datasets.pairs.weight-2"
    )


def test_words_that_were_expanded_are_read_as_before() -> None:
    with composer() as hydra:
        once = hydra.words(["loss=dpo", "model=tiny", "datasets=[hh,pairs.jsonl]", "datasets.pairs.weight=2"])
        assert hydra.words(once) == once


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("datasets=[hh,pears.jsonl]", "datasets: there is no file pears.jsonl (did you mean `pairs.jsonl`?)"),
        ("datasets=[nowhere/*.jsonl]", "datasets: there is no file nowhere/*.jsonl"),
        ("datasets=[hh,pairs]", "datasets: there is no pairs; there are "),
        ("datasets=pairs.jsonl,plain", "datasets: takes files as a list, [pairs.jsonl,plain]; one after the other: "),
    ],
)
def test_what_is_no_file_is_one_line(word: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        composed(word)
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


def test_two_files_of_one_name_under_one_key_lose_one(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, own_files, "_unused(name_of(plain), (*sets, *(own.name for own in found)))", "name_of(plain)")
    assert len(composed("datasets=[pairs.jsonl,data/pairs.jsonl]")[0].datasets) == 1


@pytest.mark.parametrize(
    ("path", "name"), [("a/my.data.v2.jsonl", "my_data_v2"), ("Änder.csv", "nder"), ("x/*.json", "x"), ("_.txt", "in")]
)
def test_names_can_be_written_as_keys(path: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    assert name_of(path) == name


@pytest.mark.parametrize("path", ["x.jsonl", ["x.jsonl", "data/*.jsonl"], "data/*.jsonl", None])
def test_a_path_is_a_file_a_pattern_or_a_list(path: str | list[str] | None) -> None:
    given = {"loss": {}, "datasets": {"mine": {"source": "files", "path": path}}, "model": {"architecture": {"a": 1}}}
    assert without_loss(given, ()).datasets == {"mine": DatasetConfig(path=path)}


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (True, "datasets.mine.path: expected text or a list [...], not true"),
        ({"a": 1}, "datasets.mine.path: expected text or a list [...], not {'a': 1}"),
        ([["a"]], "datasets.mine.path: expected text, not ['a']"),
        ([None], "datasets.mine.path: may not be null; expected text"),
    ],
)
def test_other_paths_are_one_line(path: object, says: str) -> None:
    given = {"loss": {}, "datasets": {"mine": {"source": "files", "path": path}}, "model": {"architecture": {"a": 1}}}
    with pytest.raises(UserError) as error:
        without_loss(given, ())
    assert str(error.value) == says
