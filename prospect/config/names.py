"""Names of keys: which there are, and what a wrong one probably meant."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from prospect.config.schema import Config, DatasetConfig
from prospect.errors import nearest

# What other frameworks, or texts about them, call things: the key here, and how it differs.
FOREIGN = {
    "learning_rate": "`lr`",
    "num_train_epochs": "`n_epochs`",
    "num_epochs": "`n_epochs`",
    "epochs": "`n_epochs`",
    "max_steps": "`n_examples`, in examples: steps × model.batch_size",
    "warmup_ratio": "`warmup`",
    "lr_scheduler_type": "`lr_schedule`",
    "optim": "`optimizer`",
    "weight_decay": "`optimizer_args.weight_decay`",
    "min_lr": "`lr_schedule_args.min_lr`",
    "save_steps": "`save_every`, in examples",
    "save_strategy": "`save_every`, in examples; without it each evaluation saves",
    "save_total_limit": "`keep_checkpoints`",
    "eval_steps": "`eval_every`, in examples",
    "eval_strategy": "`eval_every`, in examples",
    "evaluation_strategy": "`eval_every`, in examples",
    "logging_steps": "`minimum_log_interval_secs`, in seconds",
    "output_dir": "`cache_dir` and `exp_name`",
    "run_name": "`exp_name`",
    "report_to": "`logger=wandb` or `logger=tensorboard`",
    "resume": "nothing: the same command continues its run",
    "resume_from_checkpoint": "nothing: the same command continues its run",
    "per_device_train_batch_size": "`model.batch_size` (over all GPUs) and `model.tokens_per_microbatch`",
    "per_device_eval_batch_size": "`model.eval_batch_size`",
    "train_batch_size": "`model.batch_size`",
    "gradient_checkpointing": "`model.activation_checkpointing`",
    "model_name_or_path": "`model.name_or_path`",
    "model_path": "`model.name_or_path`",
    "max_seq_length": "`model.max_length`",
    "max_seq_len": "`model.max_length`",
    "cutoff_len": "`model.max_length`",
    "torch_dtype": "`model.policy_dtype`",
    "dtype": "`model.policy_dtype`",
    "bf16": "`model.policy_dtype=bfloat16`",
    "fp16": "`model.policy_dtype=bfloat16`",
    "attn_implementation": "`model.use_flash_attention`",
    "use_peft": "`peft=lora`",
    "use_lora": "`peft=lora`",
    "use_qlora": "`peft=qlora`",
    "load_in_4bit": "`peft=qlora`",
    "load_in_8bit": "`peft=qlora`, in 4 bits",
    "finetuning_type": "`peft=lora`, or `peft=none` for all weights",
    "lora_rank": "`peft.r`",
    "lora_r": "`peft.r`",
    "rank": "`peft.r`",
    "lora_alpha": "`peft.alpha`",
    "lora_dropout": "`peft.dropout`",
    "lora_target": "`peft.target_modules`",
    "lora_target_modules": "`peft.target_modules`",
    "bnb_4bit_quant_type": "`peft.quantization`",
    "bnb_4bit_use_double_quant": "`peft.double_quant`",
    "bnb_4bit_compute_dtype": "`model.policy_dtype`",
    "lora_model": "`model.load_from`, and `eval.py ++mode=merge` to merge",
    "adapter_name_or_path": "`model.load_from`",
    "peft_path": "`model.load_from`",
    "hub_model_id": "`eval.py ++mode=push ++repo=<org/name>`",
    "push_to_hub": "`eval.py ++mode=push ++repo=<org/name>`",
    "dataset": "`datasets=[<name>]`",
    "dataset_name": "`datasets=[<name>]`",
    "do_sample": "`temperature` (0: always the likeliest token)",
    "max_tokens": "`max_new_tokens`",
    "precompute_ref_log_probs": "`cache_reference_logprobs`",
    "sync_ref_model": "`sync_reference_every`, in steps",
    "ref_model_sync_steps": "`sync_reference_every`",
    "ref_model_mixup_alpha": "`sync_reference_mixing`",
    "cpo_alpha": "`loss.sft_weight`",
    "rpo_alpha": "`loss.sft_weight`",
    "pref_ftx": "`loss=rpo` and its `loss.sft_weight`",
    "f_divergence_type": "`loss.divergence`",
    "ld_alpha": "`loss=ld-dpo` and its `loss.alpha`",
    "use_weighting": "`loss=wpo`, with TRL's weight by `loss.compat=trl`",
    "simpo_gamma": "`loss.gamma_beta_ratio`, the margin over beta",
    "loss_type": "`loss=<name>`",
    "center_rewards_coefficient": "`loss.center` of loss=reward",
    "vf_coef": "`loss.critic_coef` of loss=ppo",
    "kl_coef": "`loss.KL_coef` of loss=ppo",
    "init_kl_coef": "`loss.KL_coef` of loss=ppo",
    "lambda": "ORPO's weight is `loss.or_weight`",
    "OR_scale": "ORPO's weight is `loss.or_weight`",
    "orpo_alpha": "ORPO's weight is `loss.or_weight`, orpo_alpha times orpo_beta",
    "orpo_beta": "ORPO's weight is `loss.or_weight`, orpo_beta times orpo_alpha where there is one",
    "api_key": "no key holds a secret: set it in the environment (OPENAI_API_KEY, WANDB_API_KEY, HF_TOKEN)",
}

# What a key of other losses is called in one trainer.
OWN = {("ORPOTrainer", "beta"): "ORPO's weight is `loss.or_weight` (TRL calls it beta)"}


def unknown_key(key: str, known: Iterable[str] | None = None) -> str:
    """The line about a key that does not exist: a foreign name, a wrong place, a misspelling, in this order."""
    there = set(keys()) | set(known or ())
    parts = key.split(".")
    for start in range(1, len(parts)):  # config.intermediate_checkpoints
        if ".".join(parts[start:]) in there:
            return f"{key}: unknown key (did you mean `{'.'.join(parts[start:])}`?)"
    if parts[-1] in FOREIGN:
        return f"{key}: unknown key; here: {FOREIGN[parts[-1]]}"
    elsewhere = sorted(name for name in there if name.endswith(f".{parts[-1]}") and "*" not in name)
    if elsewhere:
        return f"{key}: unknown key (did you mean `{elsewhere[0]}`?)"
    return f"{key}: unknown key" + (nearest(key, there) or _nearest_leaf(key, there))


def _nearest_leaf(key: str, there: Iterable[str]) -> str:
    leaves = {name.rsplit(".", 1)[-1]: name for name in sorted(there, reverse=True)}
    close = nearest(key.rsplit(".", 1)[-1], leaves)
    return f" (did you mean `{leaves[close.split('`')[1]]}`?)" if close else ""


@functools.cache
def keys() -> tuple[str, ...]:
    """Every key of the schema, dotted; a data set's under `datasets.<name>`."""
    return (*_keys(Config, ""), *_keys(DatasetConfig, "datasets.<name>."))


@functools.cache
def text_keys() -> frozenset[str]:
    """Keys whose value is text, so that exp_name=007 is not the number 7."""
    return frozenset(_keys(Config, "", only=(str, str | None)))


def _keys(kind: Any, prefix: str, only: tuple[Any, ...] = ()) -> list[str]:
    found = []
    hints = get_type_hints(kind)
    for field in filter(lambda field: field.init, fields(kind)):
        if is_dataclass(hints[field.name]):
            found += _keys(hints[field.name], f"{prefix}{field.name}.", only)
        elif not only or hints[field.name] in only:
            found.append(f"{prefix}{field.name}")
    return found
