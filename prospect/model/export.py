"""A policy as a folder that transformers, vLLM and the hub understand, with a card that says where it comes from."""

from __future__ import annotations

from pathlib import Path

import yaml
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from prospect.config.schema import Config
from prospect.model.adapter import Adapter


def save_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: list[int],
    config: Config,
    folder: Path,
    adapter: Adapter | None = None,
) -> None:
    """Write weights (safetensors), tokenizer, chat template, generation config and model card into ``folder``.

    With ``adapter`` its weights alone, and what they stand on.
    """
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stop_ids,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
    )
    if adapter is not None:
        adapter.save(folder)
        model.generation_config.save_pretrained(folder)
    else:
        implementation = model.config._attn_implementation
        model.config._attn_implementation = None  # ours is not known to others
        try:
            model.save_pretrained(folder)
        finally:
            model.config._attn_implementation = implementation
    tokenizer.save_pretrained(folder)
    text = card(config, adapter.base.name if adapter is not None else None)
    (folder / "README.md").write_text(text, encoding="utf-8")


def card(config: Config, under_adapter: str | None = None) -> str:
    """The model card: front matter for the hub, then the facts of the run; ``under_adapter``: what an adapter needs."""
    base = under_adapter or config.model.name_or_path
    front = {
        "library_name": "peft" if under_adapter else "transformers",
        **({"base_model": base} if base and not Path(base).exists() else {}),  # the hub knows no folders of ours
        "datasets": sorted(config.datasets),
        "tags": ["prospect", "alignment", config.loss.name],
    }
    what = f"An adapter on {under_adapter}, trained" if under_adapter else "Trained"
    start = config.model.load_from or base or "random weights"
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=True)}---\n\n# {config.exp_name}\n\n"
        f"{what} by Prospect with `loss={config.loss.name}` on {', '.join(sorted(config.datasets))}, "
        f"starting from {start}. The resolved configuration is `config.yaml` in the run's folder.\n"
    )
