"""What is put together before the first step."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from transformers import AutoConfig, GenerationConfig

from prospect.checkpoint.origin import resolve
from prospect.config.schema import Config
from prospect.conversation import asked
from prospect.errors import UserError
from prospect.model import load
from prospect.model.shield import token_id
from prospect.parallel import World
from prospect.reference import CachedReference, LiveReference
from tests import tiny
from tests.model.formats import TEMPLATES, tokenizer
from tests.planted import plant
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


def with_marks(config: Config, folder: Path, template: str = TEMPLATES["chatml"]) -> Config:
    """The run on a folder with a small model, whose tokenizer has the marks of a chat template."""
    words = tokenizer()
    words.chat_template = template
    words.save_pretrained(folder)
    shape = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    AutoConfig.for_model(**{**tiny.SHAPE, **shape}).save_pretrained(folder)
    config.model.name_or_path, config.model.architecture = str(folder), None
    return config


def test_a_models_own_stop_tokens_stop_here_too(tmp_path: Path) -> None:
    config = with_marks(tiny.config(tmp_path), tmp_path / "model")
    own = tokenizer()
    turn, eos, other = (own.convert_tokens_to_ids(x) for x in ("<|im_end|>", "<|endoftext|>", "<|eot_id|>"))
    assert prepare_text(config, None).chat.stop_ids == sorted([turn, eos])
    GenerationConfig(eos_token_id=[other, 5]).save_pretrained(tmp_path / "model")  # 5 is a letter: by default, say
    text = prepare_text(config, None)
    assert text.chat.stop_ids == sorted([turn, eos, other])
    assert prepare_text(tiny.config(tmp_path), resolve("model", tmp_path)).chat.stop_ids == text.chat.stop_ids


def test_planted_deafness_to_them_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, load.own_stops, "return [i for i in ids", "return [i for i in ()")
    with pytest.raises(AssertionError):
        test_a_models_own_stop_tokens_stop_here_too(tmp_path)


def test_tokens_that_messages_may_hold_are_tokens_of_the_tokenizer(tmp_path: Path) -> None:
    config = with_marks(tiny.config(tmp_path, chat_tokens_kept=["<|im_strat|>"]), tmp_path / "model")
    with pytest.raises(UserError, match=r"chat_tokens_kept: <\|im_strat\|> is no added token .*did you mean.*im_start"):
        prepare_text(config, None)
    config.chat_tokens_kept = ["<|im_start|>"]
    chat = prepare_text(config, None).chat
    start = token_id(chat.tokenizer, "<|im_start|>")
    assert chat.encode(chat.prompt(asked("<|im_start|>"))).count(start) == 3
