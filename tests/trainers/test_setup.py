"""What is put together before the first step."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from prospect.checkpoint.origin import resolve
from prospect.parallel import World
from prospect.reference import CachedReference, LiveReference
from tests import tiny
from trainers import make_trainer
from trainers.launch import train_in_process
from trainers.setup import prepare_data, prepare_policy, prepare_reference, prepare_text


@pytest.mark.parametrize(
    ("loss", "cached", "kind"), [("sft", True, None), ("dpo", True, CachedReference), ("dpo", False, LiveReference)]
)
def test_a_reference_where_the_loss_needs_one(tmp_path: Path, loss: str, cached: bool, kind: type | None) -> None:
    config = tiny.config(tmp_path, loss, cache_reference_logprobs=cached)
    trainer = make_trainer(config)
    text = prepare_text(config, None)
    data = prepare_data(config, trainer, text)
    policy = prepare_policy(config, None, text, World())
    reference, digest = prepare_reference(config, trainer, data, text, World(), None, policy)
    assert (None if reference is None else type(reference)) is kind
    assert len(digest) == 32
    if isinstance(reference, LiveReference):
        assert reference.policy.model is not policy.model
        assert not reference.policy.model.training


def test_a_loaded_runs_tokenizer_wins(tmp_path: Path) -> None:
    """Other data train another tokenizer; the weights would not know its tokens."""
    assert train_in_process(tiny.config(tmp_path, n_examples=8), World()) == 0
    other = tiny.config(tmp_path, "dpo", count=25, load_from="sft")
    own = prepare_text(other, None).tokenizer.get_vocab()
    loaded = prepare_text(other, resolve("sft", tmp_path)).tokenizer.get_vocab()
    assert loaded == prepare_text(tiny.config(tmp_path), None).tokenizer.get_vocab()
    assert loaded != own


def test_what_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny.config(tmp_path)
    logging.getLogger("prospect").propagate = True
    with caplog.at_level(logging.INFO):
        tiny.trainer_and_engine(config)
    said = "\n".join(caplog.messages)
    assert "tokens, the Archangel chat template" in said
    assert "0 prompts are in both training and evaluation" in said
    assert "33 examples in 5 steps of 8" in said
    assert "attention: one SDPA call a sequence" in said
