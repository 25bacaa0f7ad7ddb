"""What transformers 4.57 reads of exports. tests/older/read.json is what it has read; ``make older`` reads it anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prospect.model import older
from prospect.model.older import TRIED, make_readable, read_there
from tests.model.formats import chat
from tests.older.export import SHAPES, export, model, spell, tokenizers
from tests.planted import plant
from tests.tiny import CHECKOUT

READ: dict[str, dict[str, Any]] = json.loads((CHECKOUT / "tests" / "older" / "read.json").read_text())
# Keys that 4.57 derives from others; it reads no such key in config.json.
DERIVED = {"gpt_neox": ("rope_theta", "partial_rotary_factor")}
# As 4.57's configuration classes have them, where a file has no such key.
DEFAULTS = {"rope_scaling": None, "rope_theta": 10000.0, "partial_rotary_factor": 0.5}


def left_out(name: str, folder: Path) -> list[str]:
    """Settings that 4.57 would read otherwise than it has read them when its logits were equal."""
    there = json.loads((folder / "config.json").read_text())
    wanted = {key: value for key, value in READ[name].items() if key not in DERIVED.get(name, ())}
    return [key for key, value in wanted.items() if there.get(key, DEFAULTS.get(key)) != value]


def test_all_that_is_promised_was_tried() -> None:
    assert set(TRIED) == set(READ) == set(SHAPES)
    assert read_there("llama")
    assert not read_there("modernbert-decoder")  # its angles are other ones there


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt_neox", "phi", "qwen3_moe", "mistral"])
def test_settings_stand_where_4_57_looks(name: str, tmp_path: Path) -> None:
    export(name, tmp_path)
    assert left_out(name, tmp_path) == []
    again = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = torch.arange(3, 40)[None]
    assert torch.equal(again(ids).logits, model(name)(ids).logits)  # and ours takes both forms for the same


def test_planted_settings_under_the_new_name_alone_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, older._with_rope, 'made["rope_scaling"] = scaling', "pass")
    export("llama", tmp_path)
    assert left_out("llama", tmp_path) == ["rope_scaling"]


def test_the_tokenizer_is_of_a_class_that_4_57_has(tmp_path: Path) -> None:
    """And of none that would put another BOS before a text than tokenizer.json does."""
    found = {"own": chat("llama3", adds_bos=True).tokenizer, **tokenizers()}
    for name, tokenizer in found.items():
        tokenizer.save_pretrained(tmp_path / name)
        make_readable(tmp_path / name)
        stored = json.loads((tmp_path / name / "tokenizer_config.json").read_text())
        assert stored["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert isinstance(stored["additional_special_tokens"], list)
        assert "extra_special_tokens" not in stored
        assert spell(AutoTokenizer.from_pretrained(tmp_path / name)) == spell(tokenizer)


def test_a_tokenizer_with_code_of_its_own_keeps_its_class(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    named = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    make_readable(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == named
