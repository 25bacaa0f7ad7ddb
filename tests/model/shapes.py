"""Small models of each architecture whose features the packed attention and the tiled head must honour."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from prospect.model.attention import NAME

WINDOW = 7  # shorter than the sequences of the tests
_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 96,
    "max_position_embeddings": 128,
    "initializer_range": 0.25,  # so large that attention is far from uniform
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_GQA = {"num_key_value_heads": 2, "head_dim": 8}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True, **_GQA},
    "gpt_neox": {"model_type": "gpt_neox"},
    "gemma2": {
        "model_type": "gemma2",
        **_GQA,
        "sliding_window": WINDOW,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 5,
    },
    "mistral": {"model_type": "mistral", **_GQA, "sliding_window": WINDOW},
    "qwen3": {"model_type": "qwen3", **_GQA},
    "cohere": {"model_type": "cohere", "num_key_value_heads": 2, "logit_scale": 0.25},
    "granite": {"model_type": "granite", "num_key_value_heads": 2, "logits_scaling": 4.0, "attention_multiplier": 0.2},
    "phi": {"model_type": "phi"},  # has a bias in its head
}


def build(name: str, implementation: str = NAME, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The same random weights for the same name."""
    torch.manual_seed(3)
    config = AutoConfig.for_model(**{**_SMALL, **SHAPES[name]})
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation, dtype=dtype)
    head = model.get_output_embeddings()
    if head.bias is not None:
        torch.nn.init.normal_(head.bias)
    assert isinstance(model, PreTrainedModel)
    return model.train()
