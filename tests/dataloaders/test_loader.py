"""The data of a run: steps, evaluation chunks, mismatched answers, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataloaders.loader import Data, load, one_sided
from dataloaders.packing import length
from dataloaders.records import RecordKind
from prospect.config.schema import DatasetConfig
from prospect.errors import UserError
from tests import tiny
from tests.model.formats import chat
from tests.planted import plant

CHAT = chat("archangel")


def data(folder: Path, kind: RecordKind = RecordKind.pairs, balanced: bool = False, **changes: Any) -> Data:
    return load(tiny.config(folder, "dpo", **changes), kind, balanced, CHAT)


def two_sets(folder: Path) -> dict[str, DatasetConfig]:
    paths = [tiny.write_pairs(folder / f"{seed}.jsonl", 30, seed) for seed in (1, 2)]
    return {f"set{i}": DatasetConfig(path=str(path), test_fraction=0.3) for i, path in enumerate(paths)}


def test_an_epoch_of_steps_holds_every_record_once(tmp_path: Path) -> None:
    made = data(tmp_path)
    steps = [made.step(number) for number in range(made.n_steps)]
    assert [len(step) for step in steps] == [8, 8, 8, 8, 1]  # the last is not dropped
    assert Counter(r.id for s in steps for r in s) == Counter(made.train[i].id for i in range(len(made.train)))


def test_two_data_sets_are_one_list(tmp_path: Path) -> None:
    made = data(tmp_path, datasets=two_sets(tmp_path))
    by_set = Counter(made.train[i].dataset for i in range(len(made.train)))
    assert by_set == {name: len(store) for name, store in zip(made.train.names, made.train.stores, strict=True)}
    assert len({made.train[i].id for i in range(len(made.train))}) == len(made.train)
    assert len(made.train.joined("prompt_keys")) == len(made.train)
    assert set(made.fingerprints) == {"set0/train", "set1/train", "set0/evaluation", "set1/evaluation"}


def test_training_and_evaluation_share_no_prompt(tmp_path: Path) -> None:
    made = data(tmp_path)
    assert len(np.intersect1d(made.train.joined("prompt_keys"), made.evaluation.joined("prompt_keys"))) == 0
    assert len(made.train) + len(made.evaluation) == 40


def test_evaluation_is_the_same_each_time_and_whatever_the_batch_size(tmp_path: Path) -> None:
    def ids(**changes: Any) -> dict[str, list[str]]:
        made = data(tmp_path, datasets=two_sets(tmp_path), n_eval_examples=11, **changes)
        return {name: [r.id for c in chunks for r in c] for name, chunks in made.eval_chunks().items()}

    first = ids()
    assert sum(map(len, first.values())) == 11
    assert set(first) == {"set0", "set1"}
    assert first == ids() == ids(batch_size=3) == ids(seed=9)


def test_mismatched_answers_of_a_step(tmp_path: Path) -> None:
    made = data(tmp_path, RecordKind.labelled, max_length=500)  # so that no answer is cut
    records = made.step(0)
    answers = {tuple(r.answer_ids[0]): r for r in records}
    drawn = made.mismatches(records, 0)
    partners = []
    for record, item in zip(records, drawn, strict=True):
        assert item is not None
        partner = answers[tuple(item.answer_ids)]
        partners.append(partner.id)
        assert item.prompt_ids == record.prompt_ids
        assert partner.prompt_key != record.prompt_key
    assert len(set(partners)) == len(records)
    assert made.mismatches(records, 0) == drawn
    assert made.mismatches(records, 1) != drawn


def test_micro_batches_keep_to_the_budget(tmp_path: Path) -> None:
    made = data(tmp_path, tokens_per_microbatch=200)
    records = made.step(0)
    batches = made.microbatches(records)
    assert [i for b in batches for i in dict.fromkeys(b.ids)] == [r.id for r in records]  # no pair is split
    assert all(len(b.input_ids) <= 200 or len(set(b.ids)) == 1 for b in batches)
    assert sum(len(b.input_ids) for b in batches) == sum(map(length, records))


def test_fractions_take_nested_subsets_of_unique_records(tmp_path: Path) -> None:
    def shown(desirable: float, undesirable: float) -> tuple[set[str], set[str]]:
        made = data(tmp_path, RecordKind.labelled, frac_unique_desirable=desirable, frac_unique_undesirable=undesirable)
        records = [made.train[int(i)] for i in made.order.epoch(0)]
        kinds = [{r.id for r in records if r.roles == [role]} for role in (0, 1)]
        return kinds[0], kinds[1]

    whole, half, tenth = shown(1.0, 1.0), shown(0.5, 1.0), shown(0.1, 1.0)
    assert [len(x[0]) for x in (whole, half, tenth)] == [33, 16, 3]
    assert tenth[0] < half[0] < whole[0]
    assert whole[1] == half[1] == tenth[1]


def test_balanced_steps_hold_as_many_of_each(tmp_path: Path) -> None:
    made = data(tmp_path, RecordKind.labelled, balanced=True, frac_unique_desirable=0.5)
    assert made.order.epoch_length == 32
    assert all(Counter(r.roles[0] for r in made.step(n)) == {0: 4, 1: 4} for n in range(4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 64}, r"model.batch_size: one step needs 64 records, the run has 33 \(n_epochs=1, 33 records"),
        ({"frac_unique_desirable": 0.5}, "frac_unique_desirable: has no meaning for loss=dpo, which takes pairs"),
    ],
)
def test_refusals(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        data(tmp_path, **changes)


def labelled_file(folder: Path, labels: list[bool]) -> dict[str, DatasetConfig]:
    file = folder / "labelled.jsonl"
    rows = [{"prompt": f"{i}?", "completion": "red", "label": label} for i, label in enumerate(labels)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"mine": DatasetConfig(path=str(file), test_path=str(file))}


def test_data_without_pairs_are_refused_for_pairs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"datasets.mine: 20 examples, but none gives a pair .*loss=kto takes that"):
        data(tmp_path, datasets=labelled_file(tmp_path, [True] * 20))


@pytest.mark.parametrize("changes", [{}, {"n_examples": 16}])
def test_balance_needs_both_kinds(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="all 20 records are desirable; loss=dpo takes as many of the other kind"):
        data(tmp_path, RecordKind.labelled, True, datasets=labelled_file(tmp_path, [True] * 20), **changes)


def test_weights_show_a_data_set_more_often(tmp_path: Path) -> None:
    sets = two_sets(tmp_path)
    sets["set1"].weight = 2.0
    made = data(tmp_path, datasets=sets)
    shown = Counter(made.train[int(i)].dataset for i in made.order.epoch(0))
    sizes = dict(zip(made.train.names, map(len, made.train.stores), strict=True))
    assert shown == {"set0": sizes["set0"], "set1": 2 * sizes["set1"]}


@pytest.mark.parametrize(
    ("kinds", "kind", "advice"),
    [
        ((4, 0), RecordKind.labelled, "add undesirable ones (label: false), or take loss=sft"),
        ((0, 4), RecordKind.labelled, "add desirable ones (label: true)"),
        ((1, 4), RecordKind.labelled, None),
        ((4, 0), RecordKind.answers, None),
        ((4, 0), RecordKind.pairs, None),
    ],
)
def test_labels_of_one_kind_are_warned_of(kinds: tuple[int, int], kind: RecordKind, advice: str | None) -> None:
    said = one_sided(kinds, kind, "kto")
    assert said is None if advice is None else (said is not None and advice in said and "loss=kto" in said)


def test_a_warning_that_looks_at_no_kind_would_speak_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, one_sided, "kind is not RecordKind.labelled or", "")
    assert one_sided((4, 0), RecordKind.pairs, "dpo")
