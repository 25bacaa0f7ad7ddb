"""Exported folders for transformers 4.57: rotary settings and tokenizer class under the names that it reads.

transformers 5 keeps all rotary settings in ``rope_parameters``. 4.57 ignores that key and takes its defaults, so it
would compute other logits without a word. It has no tokenizer class named TokenizersBackend, and of Llama's, Gemma's
and Cohere's it puts BOS before a text whatever tokenizer.json says. Version 5 reads both forms as the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LEAST = "4.57"
# Architectures whose exports were loaded there, with equal logits (make older).
TRIED = (
    *("bloom", "cohere", "cohere2", "deepseek_v3", "ernie4_5", "exaone4", "falcon", "gemma", "gemma2", "gemma3_text"),
    *("glm4", "gpt2", "gpt_neox", "gpt_oss", "granite", "llama", "mistral", "mixtral", "olmo2", "olmo3", "opt", "phi"),
    *("phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2"),
)
_THETA, _PART = "rope_theta", "partial_rotary_factor"
_OWN_NAMES = {"gpt_neox": {_THETA: "rotary_emb_base", _PART: "rotary_pct"}}
_EXPERTS = {"qwen3_moe": "num_experts"}  # 5 writes num_local_experts
_LOCAL_THETA = {"gemma3_text": "rope_local_base_freq"}  # of layers that attend to a window


def make_readable(folder: Path) -> None:
    """Add what 4.57 reads to config.json and tokenizer_config.json, where there are such."""
    changes: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"config.json": _with_rope}
    if (folder / "tokenizer.json").is_file():
        changes["tokenizer_config.json"] = _with_class
    for name, change in changes.items():
        file = folder / name
        if file.is_file():
            content = change(json.loads(file.read_text(encoding="utf-8")))
            file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_there(model_type: str) -> bool:
    """Whether exports of an architecture are known to load in 4.57 with equal logits."""
    return model_type in TRIED


def _with_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, and those inside it (of models for text and images), with the older keys beside the new ones."""
    inner = {key: _with_rope(value) for key, value in config.items() if key.endswith("_config") and value}
    made = {**config, **inner}
    kind = str(config.get("model_type"))
    if kind in _EXPERTS and "num_local_experts" in config:
        made[_EXPERTS[kind]] = config["num_local_experts"]
    rope = config.get("rope_parameters")
    if not isinstance(rope, Mapping):
        return made
    if kind in _LOCAL_THETA:
        made[_LOCAL_THETA[kind]] = rope["sliding_attention"][_THETA]
    whole = rope.get("full_attention", rope)
    for key in (_THETA, _PART):
        if whole.get(key) is not None:
            made[_OWN_NAMES.get(kind, {}).get(key, key)] = whole[key]
    scaling = {key: value for key, value in whole.items() if key not in (_THETA, _PART)}
    if scaling.get("rope_type", "default") != "default":
        made["rope_scaling"] = scaling
    return made


def _with_class(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """The class that takes tokenizer.json as it is, by the name that both versions have."""
    made = dict(tokenizer)
    if "auto_map" not in made:
        made["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(made.get("extra_special_tokens"), list):
        made["additional_special_tokens"] = made.pop("extra_special_tokens")
    return made
