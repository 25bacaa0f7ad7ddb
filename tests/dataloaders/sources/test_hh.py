"""HH against a plain reading of the original's rules, on the real test split and on small dialogues."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from dataloaders.example import Example
from dataloaders.sources import hh
from dataloaders.sources.source import answers

Texts = tuple[str, str, str]  # prompt, chosen, rejected


def archangel(example: Example) -> Texts:
    turns = [f"\n<|{turn.role}|>\n{turn.content}" for turn in example.prompt]
    ((better, worse),) = example.pairs
    return "".join(turns) + "\n<|assistant|>\n", example.answers[better].content, example.answers[worse].content


def by_the_original_rules(row: dict[str, str]) -> Texts:
    """What the original makes of a pair: cut at the last answer, markers replaced, runs of blanks squeezed."""
    cut = row["chosen"].rindex("\n\nAssistant: ") + len("\n\nAssistant: ")
    prefixes = {"Human": "\n<|user|>\n", "Assistant": "\n<|assistant|>\n"}
    prompt = re.sub(r"\s*(Human|Assistant):\s+", lambda marker: prefixes[marker[1]], row["chosen"][:cut])
    texts = (prompt, row["chosen"][cut:], row["rejected"][cut:])
    squeezed = [re.sub(r"[ \t]{2,}", " ", text) for text in texts]
    return squeezed[0], squeezed[1], squeezed[2]


def is_broken(row: dict[str, str]) -> bool:
    (before, _, chosen), (other, _, rejected) = (row[side].rpartition("\n\nAssistant: ") for side in row)
    return before != other or not chosen.strip() or not rejected.strip()


@pytest.fixture(scope="session")
def real_file(shared_data: Path) -> Path:
    return shared_data / "hh_harmless_test.jsonl.gz"


@pytest.fixture(scope="session")
def expected(real_file: Path) -> list[Texts]:
    with gzip.open(real_file, "rt") as file:
        rows = [json.loads(line) for line in file]
    return [by_the_original_rules(row) for row in rows if not is_broken(row)]


def test_the_real_test_split_is_what_the_original_rules_make_of_it(load, real_file, expected):
    examples, drops = load("hh_harmless", real_file)
    assert drops.rows_read == 2312
    assert drops.reasons == {"contexts differ": 5, "empty answer": 4}
    assert [archangel(example) for example in examples] == expected
    assert len({example.id for example in examples}) == len(examples) == 2303
    assert {(example.dataset, example.keep, example.imitate) for example in examples} == {("hh_harmless", "end", 0)}


@pytest.mark.parametrize(
    ("name", "planted"),
    [("_TURN", re.compile(r"\n\n(Human:|Assistant:) ")), ("squeeze", lambda text: text), ("squeeze", str.strip)],
)
def test_the_comparison_notices_a_planted_bug(load, real_file, expected, monkeypatch, name, planted):
    monkeypatch.setattr(hh, name, planted)
    examples, _ = load("hh_harmless", real_file)
    assert [archangel(example) for example in examples] != expected


def test_turns_are_found_whatever_the_spacing(load):
    context = "\n\nHuman: Hi  there\n Assistant:   Yes?\nHuman:\tTell me.\n\nAssistant: "
    (example,), _ = load("hh", [{"chosen": context + "Sure.", "rejected": context + " No  way."}])
    turns = [(turn.role, turn.content) for turn in example.prompt]
    assert turns == [("user", "Hi there"), ("assistant", "Yes?"), ("user", "Tell me.")]
    assert example.answers == answers("Sure.", " No way.")


GOOD = "\n\nHuman: q\n\nAssistant: "


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (GOOD + "a", "\n\nHuman: Q\n\nAssistant: b", "contexts differ"),
        (GOOD + "a", GOOD + "a\n\nHuman: more\n\nAssistant: b", "contexts differ"),
        (GOOD + " ", GOOD + "b", "empty answer"),
        (GOOD + "a", GOOD + "b\n\nHuman: more\n\nAssistant:", "empty answer"),
        (GOOD + "a", GOOD + "a", "chosen equals rejected"),
        ("\n\nHuman: q", "\n\nHuman: q", "no assistant turn"),
        ("Well. " + GOOD + "a", "Well. " + GOOD + "b", "does not begin with a turn"),
        (GOOD + "Hm\n\nAssistant: a", GOOD + "Hm\n\nAssistant: b", "prompt does not end with a user turn"),
        (GOOD + "a", None, "no `rejected`"),
        (GOOD + "a", 7, "`rejected` is not text"),
        (GOOD + "a", GOOD + "\ud800", "`rejected` has a lone surrogate (broken Unicode)"),
    ],
)
def test_bad_rows_are_dropped_and_counted_with_their_place(load, tmp_path, chosen, rejected, reason):
    fine = {"chosen": GOOD + "yes", "rejected": GOOD + "no"}
    examples, drops = load("hh", [fine, {"chosen": chosen, "rejected": rejected}])
    assert len(examples) == 1
    assert drops.reasons == {reason: 1}
    assert drops.places == {reason: [f"{tmp_path}/rows.jsonl:2"]}
