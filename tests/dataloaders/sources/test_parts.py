"""Which rows a split is: shares of a file, two files, parts on the hub, generated rows. What fingerprints follow."""

from __future__ import annotations

import json
import linecache
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from hydra import compose, initialize_config_dir

import dataloaders
from dataloaders import SOURCES, fingerprint, load_examples
from dataloaders.example import Drops
from dataloaders.sources import shp
from prospect import demo as demo_rules
from prospect.config.schema import DatasetConfig, Split
from prospect.errors import MachineError, UserError

CONFIG = Path(dataloaders.__file__).parents[1] / "config"


def write(path: Path, prompts: list[str]) -> str:
    rows = [{"prompt": prompt, "chosen": "yes", "rejected": "no"} for prompt in prompts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def prompts_of(config: DatasetConfig, split: Split, name: str = "files") -> list[str]:
    return [example.prompt[-1].content for example in load_examples(name, config, split, 0, Drops())]


PROMPTS = [f"question {n}" for n in range(500)]


def test_one_file_serves_train_and_test_by_a_hash_of_the_prompt(tmp_path):
    config = DatasetConfig(path=write(tmp_path / "a.jsonl", PROMPTS))
    train, test = prompts_of(config, Split.train), prompts_of(config, Split.test)
    assert sorted(train + test) == sorted(PROMPTS) == sorted(prompts_of(config, Split.all))
    assert 30 < len(test) < 70
    shuffled = DatasetConfig(path=write(tmp_path / "b.jsonl", [*PROMPTS[::-1], "one more"]))
    assert set(prompts_of(shuffled, Split.test)) - {"one more"} == set(test)
    half = DatasetConfig(path=config.path, test_fraction=0.5)
    assert set(test) < set(prompts_of(half, Split.test))


def test_continuations_of_one_conversation_stay_together(tmp_path):
    def row(n: int, more: list[str]) -> dict[str, Any]:
        texts = [f"opening {n}", *more]
        turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
        return {"prompt": turns, "completion": "yes"}

    path = tmp_path / "a.jsonl"
    rows = [row(n, more) for n in range(100) for more in ([], ["Hm", f"more {n}"])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sides = [
        {
            example.prompt[0].content
            for example in load_examples("files", DatasetConfig(path=str(path)), split, 0, Drops())
        }
        for split in (Split.train, Split.test)
    ]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 100


def test_rows_and_drops_are_counted_before_the_split(tmp_path):
    config = DatasetConfig(path=write(tmp_path / "a.jsonl", [*PROMPTS, " "]))
    for split in (Split.train, Split.test):
        drops = Drops()
        list(load_examples("files", config, split, 0, drops))
        assert (drops.rows_read, drops.reasons) == (501, {"empty prompt": 1})


def test_two_files_are_read_whole(tmp_path):
    two = write(tmp_path / "a.jsonl", ["a", "b"]), write(tmp_path / "b.jsonl", ["c"])
    config = DatasetConfig(path=two[0], test_path=two[1])
    found = [prompts_of(config, split) for split in (Split.train, Split.test, Split.all)]
    assert found == [["a", "b"], ["c"], ["a", "b", "c"]]


def test_several_files_are_read_in_the_order_given_and_those_of_a_pattern_by_name(tmp_path):
    paths = [write(tmp_path / f"{name}.jsonl", [name]) for name in ("b", "a", "c")]
    assert prompts_of(DatasetConfig(path=[*paths]), Split.all) == ["b", "a", "c"]
    assert prompts_of(DatasetConfig(path=f"{tmp_path}/*.jsonl"), Split.all) == ["a", "b", "c"]
    assert prompts_of(DatasetConfig(path=[paths[2], f"{tmp_path}/[ab].jsonl"]), Split.all) == ["c", "a", "b"]
    two = DatasetConfig(path=paths[:2], test_path=[paths[2]])
    assert [prompts_of(two, split) for split in (Split.train, Split.test)] == [["b", "a"], ["c"]]


def test_each_of_several_files_is_read_in_its_own_shape_and_named_by_its_place(tmp_path):
    paths = [tmp_path / f"{n}.jsonl" for n in range(3)]
    rows = [{"query": "q", "chosen": "a", "rejected": "b"}, {"question": "r", "answer": "c"}, {"prompt": " "}]
    for path, row in zip(paths, rows, strict=True):
        path.write_text(json.dumps(row))
    drops = Drops()
    examples = list(load_examples("files", DatasetConfig(path=list(map(str, paths))), Split.all, 0, drops))
    assert [(len(example.pairs), example.place) for example in examples] == [(1, f"{paths[0]}:1"), (0, f"{paths[1]}:1")]
    assert (drops.rows_read, drops.places) == (3, {"empty prompt": [f"{paths[2]}:1"]})
    mapped = DatasetConfig(path=list(map(str, paths[:2])), columns={"prompt": "question"})
    assert prompts_of(mapped, Split.all) == ["q", "r"]


def test_files_of_a_source_with_a_form_of_its_own_are_one_table(tmp_path):
    row = {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "score_A": 9, "score_B": 2, "labels": 1}
    paths = [tmp_path / f"{n}.json" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_text(json.dumps({**row, "human_ref_B": f"b{n}", "score_B": 2 if n < 2 else 0}))
    drops = Drops()
    config = DatasetConfig(source="shp", path=list(map(str, paths)))
    (example,) = load_examples("shp", config, Split.all, 0, drops)
    assert len(example.pairs) == 2
    assert drops.places == {"score is not positive": [f"{paths[2]}:1"]}


def test_fingerprints_follow_the_bytes_of_all_files_and_their_order(tmp_path):
    def key(*paths: str) -> str:
        return fingerprint("mine", DatasetConfig(path=list(paths)), Split.train, 0)

    a, b, other = (write(tmp_path / f"{name}.jsonl", [name]) for name in "abc")
    copy = write(tmp_path / "copy.jsonl", ["b"])
    assert key(a, b) == key(a, copy)
    assert len({key(a, b), key(b, a), key(a, other), key(a)}) == 4


@pytest.mark.parametrize(
    ("options", "split", "says"),
    [
        ({}, Split.validation, r"datasets\.mine: there is no validation part; it has train, test$"),
        ({"test_fraction": 0.0}, Split.test, r"none of the 2 rows is left for split=test \(test_fraction is 0\.0\)"),
        ({"test_fraction": 1.0}, Split.test, r"datasets\.mine\.test_fraction: 1\.0 is not in \[0, 1\)"),
        ({"path": None}, Split.train, r"datasets\.mine\.path: names no file to read"),
        ({"path": "/nowhere/x.json"}, Split.train, r"datasets\.mine\.path: there is no file /nowhere/x\.json"),
        ({"source": "fils"}, Split.train, r"datasets\.mine\.source: .* no source fils \(did you mean `files`\?\)"),
        ({"source": "shp"}, Split.train, r"a\.jsonl: no column `history`, .*\+\+datasets\.mine\.columns\.history="),
        ({"columns": {"promt": "x"}}, Split.train, r"columns\.promt: .*did you mean `prompt`"),
        ({"columns": {"prompt": "x"}}, Split.train, r"columns\.prompt: .* no column x; it has `prompt`, `chosen`"),
        ({"source": "demo"}, Split.train, r"datasets\.mine\.path: the rows of demo are generated"),
        ({"path": []}, Split.train, r"datasets\.mine\.path: names no file to read"),
        ({"path": "nowhere/*.json"}, Split.train, r"datasets\.mine\.path: no file fits nowhere/\*\.json"),
        ({"path": [__file__, __file__]}, Split.train, r"datasets\.mine\.path: names .*test_parts\.py twice; to see"),
        ({"path": ["x", "y.json"]}, Split.train, r"datasets\.mine\.path: there is no file x"),
    ],
)
def test_mistakes_are_one_line(tmp_path, options, split, says):
    config = DatasetConfig(**{"path": write(tmp_path / "a.jsonl", ["a", "b"]), **options})
    with pytest.raises(UserError, match=says) as error:
        list(load_examples("mine", config, split, 0, Drops()))
    assert "\n" not in str(error.value)


def test_no_example_left_is_an_error_that_says_why(tmp_path):
    config = DatasetConfig(path=write(tmp_path / "a.jsonl", [" ", ""]))
    with pytest.raises(UserError, match=r"datasets.files: none of the 2 rows is left for split=train \(2 empty prompt"):
        prompts_of(config, Split.train)


def hub_of(parts: dict[str, list[dict[str, Any]]], asked: list[dict[str, Any]]) -> Callable[..., datasets.Dataset]:
    def load_dataset(path: str, **options: Any) -> datasets.Dataset:
        asked.append({"path": path, **{key: value for key, value in options.items() if value is not None}})
        return datasets.Dataset.from_list(parts[options["split"]])

    return load_dataset


PAIR = {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}


@pytest.mark.parametrize(
    ("source", "split", "row", "asked"),
    [
        ("hh", Split.test, PAIR, {"path": "Anthropic/hh-rlhf", "split": "test"}),
        ("hh_helpful", Split.train, PAIR, {"path": "Anthropic/hh-rlhf", "data_dir": "helpful-base", "split": "train"}),
        (
            *("alpacaeval", Split.test, {"instruction": "q", "output": "a", "dataset": "d"}),
            {
                "path": "json",
                "data_files": {"eval": "hf://datasets/tatsu-lab/alpaca_eval@v1/alpaca_eval.json"},
                "split": "eval",
            },
        ),
        (
            *("ultrabin", Split.train, {"prompt": "q", "chosen": [{"content": "a"}], "rejected": [{"content": "b"}]}),
            {"path": "HuggingFaceH4/ultrafeedback_binarized", "split": "train_prefs"},
        ),
    ],
)
def test_hub_parts_are_asked_for_by_their_names(monkeypatch, source, split, row, asked):
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(datasets, "load_dataset", hub_of({asked["split"]: [row]}, calls))
    config = DatasetConfig(source=source, revision="v1")
    assert len(prompts_of(config, split, source)) == 1
    assert calls == [asked if source == "alpacaeval" else {**asked, "revision": "v1"}]


def test_all_of_a_hub_set_keeps_the_training_rules_for_training_rows(monkeypatch):
    row = {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "score_A": 3, "score_B": 2, "labels": 1}
    parts = {"train": [row], "validation": [{**row, "history": "v"}], "test": [{**row, "history": "t"}]}
    monkeypatch.setattr(datasets, "load_dataset", hub_of(parts, []))
    assert prompts_of(DatasetConfig(source="shp"), Split.all, "shp") == ["v", "t"]


@pytest.mark.parametrize(
    ("parts", "split", "expected"),
    [(["train", "test"], Split.train, 100), (["train", "test"], Split.test, 100), (["train"], Split.all, 100)],
)
def test_ones_own_hub_set_is_named_by_path(monkeypatch, parts, split, expected):
    rows = [{"prompt": f"q{n}", "completion": "a"} for n in range(100)]
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda repo, subset, revision: parts)
    monkeypatch.setattr(datasets, "load_dataset", hub_of(dict.fromkeys(parts, rows), []))
    assert len(prompts_of(DatasetConfig(path="someone/some-data"), split)) == expected
    shares = [len(prompts_of(DatasetConfig(path="someone/some-data"), part)) for part in (Split.train, Split.test)]
    assert sum(shares) == (100 if parts == ["train"] else 200)


@pytest.mark.parametrize(("source", "path"), [("hh", None), ("files", "someone/some-data")])
def test_without_a_hub_the_line_names_the_set_and_the_way_out(monkeypatch, source, path):
    def fail(*args: Any, **options: Any) -> None:
        raise ConnectionError("Couldn't reach 'x' on the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    monkeypatch.setattr(datasets, "get_dataset_split_names", fail)
    with pytest.raises(MachineError, match=rf"^{path or 'Anthropic/hh-rlhf'}: .*=<file> reads a local copy$"):
        prompts_of(DatasetConfig(source=source, path=path), Split.train)


def test_a_hub_set_has_no_more_parts_than_it_has():
    with pytest.raises(UserError, match=r"datasets.hh: there is no validation part; it has train, test"):
        prompts_of(DatasetConfig(source="hh"), Split.validation, "hh")


def test_the_demo_has_three_parts_and_needs_nothing():
    counts = [len(prompts_of(DatasetConfig(source="demo"), split, "demo")) for split in Split]
    assert counts == [4000, 256, 256, 4512]


def test_generated_rows_are_told_apart_without_being_made(monkeypatch):
    def refuses(split: Split, seed: int) -> Any:
        pytest.fail("rows were made")

    source = replace(SOURCES["demo"], generate=refuses)
    monkeypatch.setattr(dataloaders, "SOURCES", {"demo": source})
    parts = [(split, seed) for split in Split for seed in (1, 2)]
    assert len({fingerprint("demo", DatasetConfig(source="demo"), split, seed) for split, seed in parts}) == len(parts)


def test_fingerprints_follow_the_code_of_a_generator(monkeypatch):
    config = DatasetConfig(source="demo")
    before = fingerprint("demo", config, Split.train, 0)
    lines = [line.replace("likely(0.85)", "likely(0.84)") for line in linecache.getlines(demo_rules.__file__)]
    monkeypatch.setattr("inspect.findsource", with_source(demo_rules, lines))
    assert fingerprint("demo", config, Split.train, 0) != before


def test_fingerprints_follow_content_options_and_code(tmp_path, monkeypatch):
    config = DatasetConfig(path=write(tmp_path / "a.jsonl", PROMPTS))

    def key(name: str = "mine", split: Split = Split.train, seed: int = 0, **options: Any) -> str:
        fields = {"source": config.source, "path": config.path, **options}
        return fingerprint(name, DatasetConfig(**fields), split, seed)

    first = key()
    same = [key(weight=3.0), key(path=write(tmp_path / "copy.jsonl", PROMPTS))]
    other = [
        *(key(name="yours"), key(split=Split.test), key(split=Split.all), key(seed=1), key(test_fraction=0.2)),
        *(key(columns={"prompt": "chosen"}), key(path=write(tmp_path / "b.jsonl", [*PROMPTS, "x"]))),
        key(test_path=write(tmp_path / "c.jsonl", PROMPTS)),
    ]
    assert set(same) == {first}
    assert len({first, *other}) == len(other) + 1


def test_fingerprints_follow_the_code_of_their_own_source(tmp_path, monkeypatch):
    path = tmp_path / "shp.jsonl"
    row = {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "score_A": 3, "score_B": 2, "labels": 1}
    path.write_text(json.dumps(row))

    def key(source: str) -> str:
        return fingerprint(
            "x", DatasetConfig(source=source, path=str(path) if source == "shp" else None), Split.train, 0
        )

    before = key("shp"), key("demo")
    lines = [line.replace("MAX_PAIRS = 5", "MAX_PAIRS = 6") for line in linecache.getlines(shp.__file__)]
    monkeypatch.setattr("inspect.findsource", with_source(shp, lines))
    assert key("shp") != before[0]
    assert key("demo") == before[1]


def with_source(module: Any, lines: list[str]) -> Callable[[Any], tuple[list[str], int]]:
    """inspect.findsource, as it would be after ``module`` was edited."""

    def findsource(thing: Any) -> tuple[list[str], int]:
        return (lines, 0) if thing is module else (linecache.getlines(thing.__file__), 0)

    return findsource


def test_every_source_has_a_member_in_the_config_group():
    defaults = DatasetConfig()
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        composed = compose(overrides=[f"+datasets=[{','.join(SOURCES)}]", "datasets.shp.path=x"])
    assert composed.datasets.shp.path == "x"
    composed.datasets.shp.path = None
    assert list(composed.datasets) == list(SOURCES)
    for name, member in composed.datasets.items():
        assert dict(member) == {key: name if key == "source" else getattr(defaults, key) for key in member}
