"""A reference from the store gives what the live model gives; the pass before training computes each value once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prospect.parallel import World
from prospect.reference import CachedReference, LiveReference, ReferenceStore
from tests import tiny
from trainers.basic import Engine
from trainers.reference_pass import fill, needed


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return tiny.trainer_and_engine(tiny.config(tmp_path_factory.mktemp("reference"), "kto"), live=True)[1]


def test_cached_equals_live(engine: Engine, tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path, "x")
    assert isinstance(engine.reference, LiveReference)
    model = engine.reference.policy
    fill(store, engine.data, engine.data.mismatches, True, lambda: model, World())
    cached = CachedReference(store)
    for number in range(engine.data.n_steps):
        records = engine.data.step(number)
        drawn = [item for item in engine.data.mismatches(records, number) if item is not None]
        for batch in [*engine.data.microbatches(records), *engine.data.packed(drawn)]:
            live, stored = engine.reference.logps(batch), cached.logps(batch)
            assert not live.tokens.requires_grad
            torch.testing.assert_close(stored.tokens, live.tokens, rtol=0, atol=2e-6)
            assert torch.equal(stored.segment, live.segment)


def test_nothing_is_computed_twice(engine: Engine, tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path, "x")
    everything = {item.key() for item in needed(engine.data, engine.data.mismatches, True)}
    count = fill(store, engine.data, engine.data.mismatches, True, lambda: engine.policy, World())
    assert count >= len(everything)
    assert store.missing(sorted(everything)) == []
    assert (
        fill(store, engine.data, engine.data.mismatches, True, lambda: pytest.fail("the model was loaded"), World())
        == 0
    )


def test_evaluation_alone_needs_less(engine: Engine) -> None:
    evaluation = {item.key() for item in needed(engine.data, engine.data.mismatches, False)}
    everything = {item.key() for item in needed(engine.data, engine.data.mismatches, True)}
    matched = {item.key() for item in needed(engine.data, None, True)}
    assert evaluation < everything
    assert matched < everything
