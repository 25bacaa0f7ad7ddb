"""Exported policies: a folder that transformers reads by itself, with the run's format and a card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from prospect.config.schema import Config, DatasetConfig, LossConfig, ModelConfig
from prospect.conversation import asked
from prospect.model.attention import NAME
from prospect.model.export import card, save_policy
from tests.model.formats import chat
from tests.model.shapes import build

CONFIG = Config(
    loss=LossConfig(name="dpo"),
    model=ModelConfig(name_or_path="org/base", load_from="my_sft"),
    datasets={"shp": DatasetConfig(), "hh": DatasetConfig()},
    exp_name="my run",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    format_, folder = chat("chatml"), tmp_path_factory.mktemp("export")
    model = build("llama")
    save_policy(model, format_.tokenizer, format_.stop_ids, CONFIG, folder)
    assert model.config._attn_implementation == NAME
    return folder


def test_transformers_reads_the_weights(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config._attn_implementation != NAME
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), build("llama").parameters(), strict=True))


def test_template_and_stop_tokens_go_along(folder: Path) -> None:
    format_, tokenizer = chat("chatml"), AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "what is one?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == format_.prompt(asked("what is one?"))
    assert tokenizer(text, add_special_tokens=False).input_ids == format_.encode(text)
    generation = GenerationConfig.from_pretrained(folder)
    assert generation.eos_token_id == format_.stop_ids
    assert len(format_.stop_ids) == 2
    assert generation.pad_token_id == tokenizer.pad_token_id


def test_the_card_tells_where_it_comes_from(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert text == card(CONFIG)
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert (facts["base_model"], facts["datasets"]) == ("org/base", ["hh", "shp"])
    assert "# my run" in body
    assert "starting from my_sft" in body
