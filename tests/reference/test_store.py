"""Reference values on disk: by content, bit for bit, from many writers."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from prospect.reference import ReferenceStore, weights_digest
from tests.model.shapes import build

FORK = multiprocessing.get_context("fork")


def values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(5).astype(np.float32)


def test_what_is_put_comes_back_bit_for_bit(tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path, "model")
    store.put([(b"a", values(1)), (b"b", values(2))])
    again = ReferenceStore(tmp_path, "model")
    for found, seed in zip(again.get([b"b", b"a", b"b"]), (2, 1, 2), strict=True):
        assert np.array_equal(found, values(seed))
    assert again.missing([b"a", b"x", b"b", b"y"]) == [1, 3]
    with pytest.raises(KeyError):
        again.get([b"x"])


def test_another_model_has_another_store(tmp_path: Path) -> None:
    ReferenceStore(tmp_path, "model").put([(b"a", values(1))])
    assert ReferenceStore(tmp_path, "other").missing([b"a"]) == [0]


def test_the_first_value_stays(tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path, "model")
    store.put([(b"a", values(1))])
    store.put([(b"a", values(2)), (b"b", values(2))])
    assert np.array_equal(store.get([b"a"])[0], values(1))


def write(folder: Path, start: int) -> None:
    store = ReferenceStore(folder, "model")
    for i in range(start, 60, 2):
        store.put([(bytes([i]), values(i)), (b"shared", values(0))])


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    children = [FORK.Process(target=write, args=(tmp_path, start)) for start in (0, 1)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    found = ReferenceStore(tmp_path, "model").get([bytes([i]) for i in range(60)])
    assert all(np.array_equal(value, values(i)) for i, value in enumerate(found))


def test_the_digest_follows_weights_and_precision() -> None:
    model = build("llama")
    base = weights_digest(model, "float32 on cpu")
    assert base == weights_digest(build("llama"), "float32 on cpu")
    assert base != weights_digest(model, "bfloat16 on cpu")
    with torch.no_grad():
        next(model.parameters())[3, 3] += 1e-6
    assert base != weights_digest(model, "float32 on cpu")
