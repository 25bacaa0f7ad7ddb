"""Prospect under the meter: its own loop, with evaluation and checkpoints left out and the file's order kept.

Everything a step does in training is timed, the log line included. KTO's mismatched answers are taken as TRL takes
them (each prompt with the answer before it), so that losses can be compared beyond the first step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from bench.job import LEARNING_RATE, Job, Row, Task, answers
from bench.meter import Meter
from dataloaders.loader import Data
from dataloaders.order import Indices, Order
from dataloaders.packing import length
from prospect.checkpoint.run import Run
from prospect.checkpoint.state import Checkpoints, Position
from prospect.config.convert import convert
from prospect.config.schema import Config
from prospect.errors import UserError
from prospect.model.load import attention_for, make_policy
from prospect.model.policy import Policy
from prospect.parallel import World
from prospect.progress import Progress
from prospect.reference import LiveReference, Reference
from trainers import TRAINERS, make_trainer
from trainers.basic import BasicTrainer, Engine, Work
from trainers.budget import settled
from trainers.kernels import settle_kernels
from trainers.loop import Loop
from trainers.setup import Text, prepare_data, prepare_policy, prepare_reference, prepare_text, settle_sharing

_LOSSES: dict[Task, dict[str, Any]] = {
    Task.sft: {"trainer": "SFTTrainer"},
    Task.dpo: {"trainer": "DPOTrainer"},
    Task.kto: {"trainer": "KTOTrainer", "compat": "trl"},  # the answer before as the mismatched one
    Task.orpo: {"trainer": "ORPOTrainer"},
}


@dataclass(frozen=True, slots=True)
class Ready:
    """What a job's steps are computed with, before any reference."""

    config: Config
    trainer: BasicTrainer
    text: Text
    data: Data
    policy: Policy
    world: World


def train(job: Job, rows: Seq[Row], scratch: Path, meter: Meter) -> None:
    """Train on the rows in their order."""
    ready = prepare(job, rows, scratch)
    settle_sharing(ready.policy, ready.data)
    with meter.reference():
        engine = Engine(ready.policy, _reference(job, ready), ready.data, ready.world)
    run = Run.of(ready.config)
    run.folder.mkdir(parents=True)
    checkpoints = Checkpoints(run.folder / "checkpoints", 1)
    loop = _Metered(ready.config, ready.trainer, engine, run, ready.text, checkpoints, Position())
    loop.meter = meter
    meter.ready()
    loop.run_to_end()
    for step, line in enumerate((run.folder / "metrics.jsonl").read_text().splitlines()):
        values = json.loads(line)
        chosen, rejected = answers(job, rows, step)
        total = chosen * values.get("logps/chosen", 0.0) + rejected * values.get("logps/rejected", 0.0)
        meter.logged(values["loss"], values["grad_norm"], total)


def prepare(job: Job, rows: Seq[Row], scratch: Path) -> Ready:
    """Tokenize all rows and load the policy; the first of them are trained, in their order."""
    config = _config(job, rows, scratch)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer, world = make_trainer(config), World(device=device)
    text = prepare_text(config, None, trainer.control_tokens)
    data = prepare_data(config, trainer, text)
    data = Data(data.train, data.evaluation, _FileOrder(data.order.pools, [1.0], 0), config, job.n_trained)
    policy = _policy(job, config, text, world)
    settle_kernels(config, policy, Position(), world)
    return Ready(config, trainer, text, settled(config, data, policy, Position(), world), policy, world)


def _policy(job: Job, config: Config, text: Text, world: World, trained: bool = True) -> Policy:
    if job.make_model is None:
        return prepare_policy(config, None, text, world, trained)
    implementation, _ = attention_for(config, world.device)
    model = job.make_model()
    model.set_attn_implementation(implementation)
    return make_policy(model, config, world.device, trained)


def _reference(job: Job, ready: Ready) -> Reference | None:
    if job.make_model is not None and ready.trainer.needs_reference and not job.precompute:
        return LiveReference(_policy(job, ready.config, ready.text, ready.world, trained=False))
    digest = None if job.make_model is None else "random"  # no file to be known by, and nothing stored before
    found, _ = prepare_reference(ready.config, ready.trainer, ready.data, ready.text, ready.world, digest, ready.policy)
    return found


class _Metered(Loop):
    meter: Meter

    def _one_step(self, work: Work, bar: Progress) -> bool:
        tokens = sum(map(length, work.records))
        self.meter.batch(tokens, tokens, len(work.records))
        stop = super()._one_step(work, bar)
        self.meter.step()
        return stop

    def _after_step(self, before: int, last: bool) -> None:
        """No evaluation and no checkpoint: the peer's adapter makes none either."""


class _FileOrder(Order):
    def _epoch(self, number: int) -> Indices:
        return np.concatenate(self.pools)


def _config(job: Job, rows: Seq[Row], scratch: Path) -> Config:
    """These values with ``job.settings`` last; not checked as train.py does: nothing is evaluated.

    Raises:
        UserError: a setting that does not exist or does not fit.
    """
    file = scratch / "rows.jsonl"
    file.write_text("".join(json.dumps(row.columns(job.task)) + "\n" for row in rows), encoding="utf-8")
    values: dict[str, Any] = {
        "loss": {"name": job.task.value, **_LOSSES[job.task]},
        "model": {
            "name_or_path": str(job.model),
            "policy_dtype": job.dtype.value,
            "max_length": job.max_length,
            "max_prompt_length": job.max_length,  # prompts are never cut: only answers, at max_length, as in TRL
            "activation_checkpointing": job.checkpointing,
            "batch_size": job.micro_batch,
        },
        "datasets": {"bench": {"source": "files", "path": str(file), "test_path": str(file)}},
        "exp_name": "bench",
        "cache_dir": str(scratch / "runs"),
        "seed": job.seed,
        "lr": LEARNING_RATE,
        "lr_schedule": "constant",
        "n_eval_examples": 0,
        "do_first_eval": False,
        "minimum_log_interval_secs": 0.0,
        "cache_reference_logprobs": job.precompute,
    }
    for setting in job.settings:
        _set(values, setting)
    problems: list[str] = []
    loss = values.pop("loss")
    config = convert(Config, values, "", problems)
    config.loss = convert(TRAINERS[loss["trainer"]].Config, loss, "loss.", problems)
    if problems:
        raise UserError("\n".join(problems))
    return config


def _set(values: dict[str, Any], setting: str) -> None:
    key, equals, value = setting.partition("=")
    if not equals:
        raise UserError(f"--set: {setting} is not key=value")
    *path, last = key.split(".")
    for name in path:
        values = values.setdefault(name, {})
    values[last] = yaml.safe_load(value)
