"""Exported policies: a folder that transformers reads by itself, with the run's format and a card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from prospect.checkpoint.origin import Origin
from prospect.config.schema import Config, DatasetConfig, LossConfig, ModelConfig, PeftConfig
from prospect.conversation import asked
from prospect.model.attention import NAME
from prospect.model.export import Facts, card, hyperparameters, results_in, save_policy
from prospect.model.load import load_tokenizer, own_stops
from prospect.model.shield import token_id
from prospect.model.template import ChatFormat
from tests import tiny
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


def test_the_card_tells_where_it_comes_from() -> None:
    facts = Facts(("Anthropic/hh-rlhf", "stanfordnlp/SHP"), {"eval/loss": 0.25, "eval/rewards/accuracies": 0.75})
    text = card(CONFIG, "llama", facts)
    _, front, body = text.split("---\n", 2)
    known = yaml.safe_load(front)
    assert (known["base_model"], known["datasets"]) == ("org/base", list(facts.datasets))
    assert "# my run" in body
    assert "`loss=dpo` on Anthropic/hh-rlhf, stanfordnlp/SHP, starting from an earlier run on org/base." in body
    assert "It loads in transformers 4.57 and later." in body
    assert {"| lr | 5e-06 |", "| model.batch_size | 32 |", "| eval/loss | 0.25 |"} <= set(body.splitlines())
    assert "older versions were not tried with beyond" in card(CONFIG, "beyond", facts)


def test_the_card_leaves_out_what_does_not_count() -> None:
    known = hyperparameters(replace(CONFIG, n_examples=64, warmup_steps=3))
    assert {"n_examples": 64, "warmup_steps": 3}.items() <= known.items()
    assert not {"n_epochs", "warmup", "peft.alpha", "loss.name"} & known.keys()
    assert hyperparameters(replace(CONFIG, peft=PeftConfig(r=4)))["peft.alpha"] == 16


def test_the_card_names_no_place_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    for place in (str(tmp_path / "base"), "/data/models/base", "./base", "../base", "~/base"):
        model = ModelConfig(name_or_path=place, tokenizer_name_or_path=place, load_from=place)
        data = {"files": DatasetConfig(path=f"{place}/pairs.jsonl")}
        config = Config(LossConfig("ppo"), model, data, exp_name="run", cache_dir=place, chat_template=place)
        config.loss = tiny.loss_config("ppo", reward_model=place)
        for text in (card(config, "llama", Facts()), card(config, "llama", Facts(), under_adapter=place)):
            assert place not in text
            assert "base_model" not in text


def test_results_are_found_again(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card(CONFIG, "llama", Facts(results={"eval/loss": 0.25, "eval/kl": -1e-9})))
    assert results_in(tmp_path) == {"eval/loss": 0.25, "eval/kl": -1e-9}
    assert results_in(tmp_path / "elsewhere") == {}


def test_each_of_several_stop_tokens_is_kept(tmp_path: Path) -> None:
    """A model that ends at any of several tokens, as its generation config says, still does."""
    format_ = chat("llama3")
    several = sorted({*format_.stop_ids, token_id(format_.tokenizer, "<|im_end|>")})
    save_policy(build("llama"), format_.tokenizer, format_.stop_ids, CONFIG, tmp_path)
    GenerationConfig(eos_token_id=several).save_pretrained(tmp_path)
    origin = Origin(tmp_path, is_state_dict=False)
    tokenizer = load_tokenizer(CONFIG.model, origin, lambda size: pytest.fail("a tokenizer was trained"))
    again = ChatFormat(tokenizer, stops=own_stops(CONFIG.model, origin, tokenizer))
    assert again.stop_ids == several
    save_policy(build("llama"), tokenizer, again.stop_ids, CONFIG, tmp_path / "again")
    assert GenerationConfig.from_pretrained(tmp_path / "again").eos_token_id == several
