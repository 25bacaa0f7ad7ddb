"""Every file of config/model, built on the meta device with its real architecture: packed attention and head fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from prospect.model.attention import NAME
from prospect.model.head import Head

FILES = {
    file.stem: yaml.safe_load(file.read_text())
    for file in sorted((Path(__file__).resolve().parents[2] / "config" / "model").glob("*.yaml"))
    if not file.stem.startswith("_")
}


def _shape(kind: str, hidden: int, inner: int, layers: int, heads: int, vocab: int, **more: Any) -> dict[str, Any]:
    names = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    tied = {"tie_word_embeddings": False}
    return tied | dict(zip(names, (kind, hidden, inner, layers, heads, vocab), strict=True)) | more


# Published shapes and numbers of parameters.
SHAPES: dict[str, tuple[dict[str, Any], int]] = {
    "huggyllama/llama-7b": (_shape("llama", 4096, 11008, 32, 32, 32000), 6_738_415_616),
    "huggyllama/llama-13b": (_shape("llama", 5120, 13824, 40, 40, 32000), 13_015_864_320),
    "huggyllama/llama-30b": (_shape("llama", 6656, 17920, 60, 52, 32000), 32_528_943_616),
    "meta-llama/Meta-Llama-3-8B": (
        _shape("llama", 4096, 14336, 32, 32, 128256, num_key_value_heads=8),
        8_030_261_248,
    ),
    "mistralai/Mistral-7B-v0.1": (
        _shape("mistral", 4096, 14336, 32, 32, 32000, num_key_value_heads=8, sliding_window=4096),
        7_241_732_096,
    ),
    "EleutherAI/pythia-1.4b": (_shape("gpt_neox", 2048, 8192, 24, 16, 50304), 1_414_647_808),
    "EleutherAI/pythia-2.8b": (_shape("gpt_neox", 2560, 10240, 32, 32, 50304), 2_775_208_960),
    "EleutherAI/pythia-6.9b": (_shape("gpt_neox", 4096, 16384, 32, 32, 50432), 6_857_302_016),
    "EleutherAI/pythia-12b": (_shape("gpt_neox", 5120, 20480, 36, 40, 50688), 11_846_072_320),
    "google/gemma-2-9b": (
        _shape(
            *("gemma2", 3584, 14336, 42, 16, 256000),
            num_key_value_heads=8,
            head_dim=256,
            query_pre_attn_scalar=256,
            sliding_window=4096,
            attn_logit_softcapping=50.0,
            final_logit_softcapping=30.0,
            tie_word_embeddings=True,
        ),
        9_241_705_984,
    ),
    "HuggingFaceTB/SmolLM2-135M": (
        _shape("llama", 576, 1536, 30, 9, 49152, num_key_value_heads=3, tie_word_embeddings=True),
        134_515_008,
    ),
    "Qwen/Qwen2.5-0.5B-Instruct": (
        _shape("qwen2", 896, 4864, 24, 14, 151936, num_key_value_heads=2, tie_word_embeddings=True),
        494_032_768,
    ),
    "Qwen/Qwen3-8B": (
        _shape("qwen3", 4096, 12288, 36, 32, 151936, num_key_value_heads=8, head_dim=128),
        8_190_735_360,
    ),
}
_LLAMA_LINEARS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
_NEOX_LINEARS = {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}


def build(name: str) -> tuple[PreTrainedModel, int | None]:
    """The model without its bytes, and how many parameters it must have."""
    spec = FILES[name]
    shape, count = SHAPES[spec["name_or_path"]] if spec.get("name_or_path") else (spec["architecture"], None)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape), attn_implementation=NAME)
    assert isinstance(model, PreTrainedModel)
    return model, count


@pytest.mark.parametrize("name", FILES)
def test_a_model_file_fits_packed_attention_and_the_tiled_head(name: str) -> None:
    spec = FILES[name]
    assert spec["name"] == name
    assert spec.get("architecture") or spec["name_or_path"] in SHAPES, "add its published shape to this test"
    model, count = build(name)
    config = model.config
    if count is not None:
        assert sum(p.numel() for p in model.parameters()) == count
    assert config._attn_implementation == NAME

    head = Head.of(model)
    assert tuple(head.linear.weight.shape) == (config.vocab_size, config.hidden_size)
    assert (head.scale, head.softcap) == (1.0, 30.0 if config.model_type == "gemma2" else None)

    layers = model.base_model.layers
    assert isinstance(layers, nn.ModuleList)
    assert len(layers) == config.num_hidden_layers
    windows = [getattr(getattr(layer, "self_attn", None), "sliding_window", None) for layer in layers]
    assert sum(window is not None for window in windows) == (len(layers) // 2 if config.model_type == "gemma2" else 0)
    if config.model_type == "mistral":
        assert config.sliding_window == 4096

    linears = _NEOX_LINEARS if config.model_type == "gpt_neox" else _LLAMA_LINEARS
    for layer in layers:  # what adapters attach to
        assert {path.split(".")[-1] for path, part in layer.named_modules() if isinstance(part, nn.Linear)} == linears
    others = [part for part in model.modules() if isinstance(part, nn.Linear)]
    assert len(others) == len(linears) * len(layers) + 1  # and the head
