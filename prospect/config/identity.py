"""Which keys decide a run's result: its default name is made of them, and a run folder belongs to one set of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from prospect.config.convert import flatten
from prospect.config.environment import written
from prospect.config.schema import Config

# Keys (with all below them) that change where, how fast and how verbosely something is done, but not what comes out.
NEUTRAL = (
    *("exp_name", "mode", "debug", "cache_dir", "local_run_dir", "wandb", "tensorboard", "parallel"),
    *("do_first_eval", "minimum_log_interval_secs", "save_every", "intermediate_checkpoints", "keep_checkpoints"),
    *("split", "out", "repo", "private", "n_samples", "samples_dir", "samples_per_prompt", "saved_policy"),
    *("temperature", "top_p", "max_new_tokens", "category_temperatures", "cache_reference_logprobs", "probes"),
    *("peft.merge_on_export", "optimizer_in_backward"),
    *("model.name", "model.eval_batch_size", "model.tokens_per_microbatch", "model.gradient_accumulation_steps"),
    *("model.activation_checkpointing", "model.compile", "model.head_kernel", "model.share_prompts"),
    *("model.use_flash_attention", "model.trust_remote_code"),
    *("loss.name", "loss.dataloader", "loss.use_reference_model"),
)
_LONGEST = 100
_ABSENT = object()


def first_difference(stored: Config, new: Config) -> str | None:
    """The first key, with both values, by which two configurations lead to different results; None if none does."""
    theirs, ours = deciding(written(stored)), deciding(written(new))
    for key in [*theirs, *(key for key in ours if key not in theirs)]:
        before, now = theirs.get(key, _ABSENT), ours.get(key, _ABSENT)
        if before != now:
            return f"{key} is {_text(before)} there and {_text(now)} now"
    return None


def deciding(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that decide the result, by dotted key."""
    return {k: v for k, v in flatten(values).items() if not any(k == n or k.startswith(f"{n}.") for n in NEUTRAL)}


def default_name(choices: Mapping[str, str | None], values: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """<loss>_<model>, then what differs from ``base`` (the same choices, no key set) or is no default choice."""
    there, ours = deciding(base), deciding(values)
    parts = {key: _text(value) for key, value in ours.items() if there.get(key, _ABSENT) != value}
    parts |= {group: chosen for group in ("datasets", "experiment", "peft") if (chosen := choices.get(group))}
    name = "_".join(
        [f"{choices['loss']}_{choices['model']}", *(f"{key}-{parts[key]}" for key in sorted(parts, key=_rank))]
    )
    short = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:_LONGEST]
    if short == name:
        return name
    return f"{short[: _LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _rank(key: str) -> tuple[bool, str]:
    """The loss's own keys first: sweeps are mostly over them, and long names are cut at the end."""
    return not key.startswith("loss."), key


def _text(value: Any) -> str:
    return "absent" if value is _ABSENT else "null" if value is None else str(value)
