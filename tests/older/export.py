"""Small models of all architectures that ``prospect.model.older`` names, with settings that are nobody's defaults.

python -m tests.older.export FOLDER writes each as an export, beside its logits and what its tokenizer gives.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.gemma.tokenization_gemma import GemmaTokenizer
from transformers.models.llama.tokenization_llama import LlamaTokenizer
from transformers.utils import logging

from prospect.config.schema import Config, LossConfig
from prospect.model.export import save_policy
from prospect.model.older import make_readable
from tests.model.formats import SPECIAL, chat

_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 420,
    "max_position_embeddings": 128,
    "initializer_range": 0.25,  # so large that other angles are other logits
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_GQA = {"num_key_value_heads": 2, "head_dim": 8}
_TWO = {"num_key_value_heads": 2}
_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
_WINDOW = {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_DEEPSEEK = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}
SHAPES: dict[str, dict[str, Any]] = {
    "bloom": {},
    "cohere": {**_TWO, "rope_theta": 8e5},
    "cohere2": {**_TWO, "rope_theta": 5e4, "sliding_window": 7},
    "deepseek_v3": {**_DEEPSEEK, "rope_theta": 5e4},
    "ernie4_5": {**_GQA, "rope_theta": 1e5},
    "exaone4": {**_GQA, "rope_theta": 1e5},
    "falcon": {"rope_theta": 5e4},
    "gemma": {**_GQA, "rope_theta": 5e4},
    "gemma2": {**_GQA, "rope_theta": 5e4, "sliding_window": 7, "query_pre_attn_scalar": 8},
    "gemma3_text": {
        **{**_GQA, **_WINDOW, "query_pre_attn_scalar": 8, "rope_theta": 5e5, "rope_local_base_freq": 2e3},
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "glm4": {**_GQA, "rope_theta": 5e4},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gpt_neox": {"rotary_pct": 0.5, "rotary_emb_base": 5000},
    "gpt_oss": {**_GQA, **_MOE, "rope_theta": 5e4, "sliding_window": 7, "rope_scaling": _YARN},
    "granite": {**_TWO, "rope_theta": 5e5, "logits_scaling": 4.0, "attention_multiplier": 0.2},
    "llama": {**_GQA, "rope_theta": 5e5, "rope_scaling": _LLAMA3, "tie_word_embeddings": True},
    "mistral": {**_GQA, "rope_theta": 1e6, "sliding_window": 7},
    "mixtral": {**_GQA, **_MOE, "rope_theta": 1e5},
    "olmo2": {**_TWO, "rope_theta": 5e5},
    "olmo3": {**_TWO, **_WINDOW, "rope_theta": 5e5, "rope_scaling": _YARN},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {"rope_theta": 5e3, "partial_rotary_factor": 0.25},
    "phi3": {**_TWO, "rope_theta": 5e4},
    "qwen2": {**_TWO, "rope_theta": 1e6, "rope_scaling": _YARN},
    "qwen3": {**_GQA, "rope_theta": 1e6},
    "qwen3_moe": {**_GQA, "rope_theta": 1e6, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "smollm3": {**_TWO, "rope_theta": 5e6, "no_rope_layers": [1, 0]},
    "stablelm": {**_TWO, "rope_theta": 5e4, "partial_rotary_factor": 0.5},
    "starcoder2": {**_TWO, "rope_theta": 5e5},
}
TEXTS = ("<s>what is one?<|im_end|> red  green <|im_start|>user\n", " what\n\nx", "42 it's Ünï 🙂")


def model(name: str) -> PreTrainedModel:
    """The same random weights for the same name, computed with plain attention."""
    torch.manual_seed(3)
    config = AutoConfig.for_model(**copy.deepcopy({**_SMALL, "model_type": name, **SHAPES[name]}))  # it changes them
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    assert isinstance(made, PreTrainedModel)
    return made


def export(name: str, folder: Path) -> None:
    """The model as a run would leave it."""
    format_ = chat("llama3", adds_bos=True)
    config = Config(loss=LossConfig(name="sft"), exp_name=name)
    save_policy(model(name), format_.tokenizer, format_.stop_ids, config, folder)


def tokenizers() -> dict[str, PreTrainedTokenizerBase]:
    """Tokenizers of classes that 4.57 has too, where they do more than tokenizer.json says."""
    made = chat("llama3").tokenizer
    backend: Any = made
    spelled = json.loads(backend.backend_tokenizer.to_str())["model"]
    names = ("<unk>", "<pad>", "<bos>", "<eos>", "▁", "▁what")
    known = {**spelled["vocab"], **{name: len(spelled["vocab"]) + i for i, name in enumerate(names)}}
    merges: Any = [tuple(pair) for pair in spelled["merges"]]
    found: dict[str, Any] = {
        "LlamaTokenizer": LlamaTokenizer(known, merges, add_bos_token=True),
        "LlamaTokenizer without BOS": LlamaTokenizer(known, merges, add_bos_token=False),
        "GemmaTokenizer": GemmaTokenizer(known, merges),
    }
    for tokenizer in found.values():
        tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    return found


def spell(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """What a tokenizer makes of texts."""
    ids = [tokenizer(text).input_ids for text in TEXTS]
    plain = [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]
    return [ids, plain, [tokenizer.decode(some) for some in ids]]


def main(root: Path) -> None:
    """All exports and tokenizers, with what must come out of them."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for name in SHAPES:
        export(name, root / name)
        with torch.no_grad():
            logits = model(name)(torch.arange(3, 103)[None]).logits
        torch.save(logits, root / name / "logits.pt")
        spelled = spell(chat("llama3", adds_bos=True).tokenizer)
        (root / name / "texts.json").write_text(json.dumps([TEXTS, *spelled]))
    for name, tokenizer in tokenizers().items():
        tokenizer.save_pretrained(root / name)
        make_readable(root / name)
        (root / name / "texts.json").write_text(json.dumps([TEXTS, *spell(tokenizer)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
