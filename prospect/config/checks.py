"""What types cannot say: ranges, contradictions, names. Every finding is one line; all are listed at once."""

from __future__ import annotations

import re
from collections.abc import Iterator

from prospect.config.schema import Config, Mode
from prospect.errors import nearest

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_SCHEDULES = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"),
    *("cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay"),
)
_OPTIMIZERS = (
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon", "NAdam", "RAdam"),
    *("RMSprop", "Rprop", "SGD", "SparseAdam"),
)


def findings(config: Config) -> list[str]:
    """Everything that is wrong with a configuration apart from its loss, in words."""
    return [*_ranges(config), *_lengths(config), *_names(config)]


def _ranges(c: Config) -> Iterator[str]:
    m = c.model
    positive = {
        "lr": c.lr,
        "n_epochs": c.n_epochs,
        "n_examples": c.n_examples,
        "n_eval_examples": c.n_eval_examples,
        "eval_every": c.eval_every,
        "save_every": c.save_every,
        "keep_checkpoints": c.keep_checkpoints,
        "n_samples": c.n_samples,
        "samples_per_prompt": c.samples_per_prompt,
        "max_new_tokens": c.max_new_tokens,
        "model.max_grad_norm": m.max_grad_norm,
        "model.max_length": m.max_length,
        "model.max_prompt_length": m.max_prompt_length,
        "model.batch_size": m.batch_size,
        "model.gradient_accumulation_steps": m.gradient_accumulation_steps,
        "model.tokens_per_microbatch": m.tokens_per_microbatch,
        "model.eval_batch_size": m.eval_batch_size,
        "parallel.processes": c.parallel.processes,
        **{f"datasets.{name}.weight": d.weight for name, d in c.datasets.items()},
    }
    for key, value in positive.items():
        if value is not None and not value > 0:
            yield f"{key}: {value} must be greater than 0"
    shares = {
        "warmup": c.warmup,
        "frac_unique_desirable": c.frac_unique_desirable,
        "frac_unique_undesirable": c.frac_unique_undesirable,
        **{f"datasets.{name}.test_fraction": d.test_fraction for name, d in c.datasets.items()},
    }
    for key, value in shares.items():
        if not 0 <= value <= 1:
            yield f"{key}: {value} must be between 0 and 1"
    if c.temperature < 0:
        yield f"temperature: {c.temperature} must not be negative (0 takes the most likely token)"
    if not 0 < c.top_p <= 1:
        yield f"top_p: {c.top_p} must be above 0 and at most 1"
    if c.warmup_steps is not None and c.warmup_steps < 0:
        yield f"warmup_steps: {c.warmup_steps} must not be negative"
    if c.n_epochs is None and c.n_examples is None:
        yield "n_epochs: null, and so is n_examples; one of them says when the run ends"
    if m.gradient_accumulation_steps > m.batch_size > 0:
        yield (
            f"model.gradient_accumulation_steps: {m.gradient_accumulation_steps} micro-batches cannot be made of "
            f"model.batch_size={m.batch_size} records; at most {m.batch_size}"
        )


def _lengths(c: Config) -> Iterator[str]:
    m = c.model
    if m.max_prompt_length >= m.max_length > 0:
        yield (
            f"model.max_prompt_length: {m.max_prompt_length} must be below model.max_length={m.max_length}, or no room "
            f"is left for an answer; set model.max_prompt_length={max(m.max_length // 2, 1)}"
        )
    positions = (m.architecture or {}).get("max_position_embeddings")
    if isinstance(positions, int) and m.max_length > positions:
        yield f"model.max_length: {m.max_length} is beyond the model's {positions} positions"


def _names(c: Config) -> Iterator[str]:
    name = c.exp_name
    if name is not None and (not _NAME.fullmatch(name) or name[0] in ".-"):
        shown = name if len(name) <= 40 else f"{name[:40]}…"
        yield f"exp_name: {shown!r} must be 1 to 100 of A-Z a-z 0-9 . _ - and begin with none of . -"
    if c.optimizer not in _OPTIMIZERS:
        yield f"optimizer: torch has no `{c.optimizer}`{nearest(c.optimizer, _OPTIMIZERS)}"
    if c.lr_schedule not in _SCHEDULES:
        hint = nearest(c.lr_schedule, _SCHEDULES) or f"; there are {', '.join(_SCHEDULES)}"
        yield f"lr_schedule: there is no `{c.lr_schedule}`{hint}"
    if not c.datasets:
        yield "datasets: nothing is chosen; add datasets=[<name>, …]"
    if c.mode is Mode.train and c.wandb.enabled and c.wandb.project == "":
        yield "wandb.project: must not be empty"


def loss_findings(c: Config) -> list[str]:
    """What is wrong with the loss's own part."""
    return list(_loss(c))


def _loss(c: Config) -> Iterator[str]:
    beta = getattr(c.loss, "beta", None)
    if beta is not None and beta <= 0:
        yield f"loss.beta: {beta} must be greater than 0"
    for key in ("desirable_weight", "undesirable_weight"):
        weight = getattr(c.loss, key, None)
        if weight is not None and weight < 0:
            yield f"loss.{key}: {weight} must not be negative"
    if c.model.v_head_max_grad_norm is not None:
        yield f"model.v_head_max_grad_norm: loss={c.loss.name} has no value head; leave it out"
