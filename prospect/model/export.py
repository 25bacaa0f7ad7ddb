"""A policy as a folder that transformers, vLLM and the hub understand, with a card that says where it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import transformers
import yaml
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from prospect.config.convert import flatten
from prospect.config.schema import Config
from prospect.model import older
from prospect.model.adapter import Adapter

# Keys of a configuration that a card shows, beside the loss's own and the adapter's; none of them is a path.
_SHOWN = (
    *("lr", "optimizer", "optimizer_args", "lr_schedule", "lr_schedule_args", "warmup", "warmup_steps", "n_epochs"),
    *("n_examples", "seed", "sync_reference_every", "frac_unique_desirable", "frac_unique_undesirable"),
    *("model.batch_size", "model.max_length", "model.max_prompt_length", "model.max_grad_norm", "model.weights_dtype"),
    *("model.policy_dtype", "peft.r", "peft.alpha", "peft.dropout", "peft.use_dora", "peft.quantization"),
)
_STRONGER = {"n_examples": "n_epochs", "warmup_steps": "warmup"}  # set, the first one counts
_NOT_SHOWN = ("name", "trainer", "dataloader", "use_reference_model", "reward_model")  # of a loss
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_RESULT = re.compile(r"^\| (eval/\S+) \| (\S+) \|$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a card says beside the configuration: data sets by their hub ids, and results of an evaluation."""

    datasets: tuple[str, ...] = ()
    results: Mapping[str, float] = field(default_factory=dict)


def save_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: list[int],
    config: Config,
    folder: Path,
    adapter: Adapter | None = None,
    facts: Facts = Facts(),
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
    older.make_readable(folder)
    text = card(config, model.config.model_type, facts, adapter.base.name if adapter is not None else None)
    (folder / "README.md").write_text(text, encoding="utf-8")


def card(config: Config, architecture: str, facts: Facts, under_adapter: str | None = None) -> str:
    """The model card: front matter for the hub, then the facts of the run; ``under_adapter``: what an adapter needs.

    Only what the hub knows is named: where something lies on this machine is nobody else's.
    """
    base = _hub_id(under_adapter or config.model.name_or_path)
    front = {
        "library_name": "peft" if under_adapter else "transformers",
        **({"base_model": base} if base else {}),
        **({"datasets": list(facts.datasets)} if facts.datasets else {}),
        "tags": ["prospect", "alignment", config.loss.name],
    }
    what = f"An adapter on {base or 'another model of ours'}, trained" if under_adapter else "Trained"
    data = ", ".join(facts.datasets) or "data that is not on the hub"
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=True)}---\n\n# {config.exp_name}\n",
        f"{what} by Prospect with `loss={config.loss.name}` on {data}, starting from {_start(config, base)}.\n",
        f"{_versions(architecture)}\n",
        f"## Hyperparameters\n\n{_table(hyperparameters(config))}\n",
    ]
    if facts.results:
        shown = {name: f"{value:.6g}" for name, value in facts.results.items()}
        parts.append(f"## Results\n\nOn `{config.eval_split}`:\n\n{_table(shown)}\n")
    return "\n".join(parts)


def hyperparameters(config: Config) -> dict[str, Any]:
    """What decides the training, by key; what is not set is left out."""
    flat = flatten({**asdict(config), "loss": asdict(config.loss)})
    own = [key for key in flat if key.startswith("loss.") and key.rpartition(".")[2] not in _NOT_SHOWN]
    idle = {weak for strong, weak in _STRONGER.items() if flat[strong] is not None}
    if config.peft.r is None:
        idle |= {key for key in _SHOWN if key.startswith("peft.")}
    return {key: flat[key] for key in (*own, *_SHOWN) if key not in idle and flat.get(key) not in (None, {}, "")}


def results_in(folder: Path) -> dict[str, float]:
    """The results that a folder's card names."""
    file = folder / "README.md"
    return (
        {name: float(value) for name, value in _RESULT.findall(file.read_text(encoding="utf-8"))}
        if file.is_file()
        else {}
    )


def _start(config: Config, base: str | None) -> str:
    if config.model.load_from:
        return f"an earlier run on {base}" if base else "an earlier run"
    return base or ("a model that is not on the hub" if config.model.name_or_path else "random weights")


def _versions(architecture: str) -> str:
    if older.read_there(architecture):
        return f"It loads in transformers {older.LEAST} and later."
    return f"Saved by transformers {transformers.__version__}; older versions were not tried with {architecture}."


def _hub_id(name: str | None) -> str | None:
    return name if name and _HUB_ID.fullmatch(name) and not Path(name).exists() else None


def _table(rows: Mapping[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])
