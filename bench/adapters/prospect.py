"""Prospect under the meter: its own loop, with evaluation and checkpoints left out and the file's order kept.

Everything a step does in training is timed, the log line included. KTO's mismatched answers are taken as TRL takes
them (each prompt with the answer before it), so that losses can be compared beyond the first step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence as Seq
from pathlib import Path

import numpy as np

from bench.job import LEARNING_RATE, Job, Row, Task
from bench.meter import Meter
from dataloaders.loader import Data
from dataloaders.order import Indices, Order
from dataloaders.packing import length
from prospect.checkpoint.run import Run
from prospect.checkpoint.state import Checkpoints, Position
from prospect.config.schema import Config, DatasetConfig, ModelConfig
from prospect.parallel import World
from prospect.progress import Progress
from trainers import TRAINERS, make_trainer
from trainers.basic import Engine
from trainers.kto import Compat, KTOTrainer
from trainers.loop import Loop
from trainers.setup import prepare_data, prepare_policy, prepare_reference, prepare_text

_TRAINER = {Task.sft: "SFTTrainer", Task.dpo: "DPOTrainer", Task.kto: "KTOTrainer"}


def train(job: Job, rows: Seq[Row], scratch: Path, meter: Meter) -> None:
    """Train on the rows in their order."""
    config = _config(job, rows, scratch)
    trainer, world = make_trainer(config), World()
    text = prepare_text(config, None, trainer.control_tokens)
    data = prepare_data(config, trainer, text)
    data = Data(data.train, data.evaluation, _FileOrder(data.order.pools, [1.0], 0), config, len(rows))
    policy = prepare_policy(config, None, text, world)
    with meter.reference():
        reference, _ = prepare_reference(config, trainer, data, text, world, None, policy)
    run = Run.of(config)
    run.folder.mkdir(parents=True)
    engine = Engine(policy, reference, data, world)
    loop = _Metered(config, trainer, engine, run, text, Checkpoints(run.folder / "checkpoints", 1), Position())
    loop.meter = meter
    meter.ready()
    loop.run_to_end()
    for line in (run.folder / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        meter.logged(values["loss"], values["grad_norm"], values.get("logps/chosen"))


class _Metered(Loop):
    meter: Meter

    def _one_step(self, bar: Progress) -> bool:
        records = self.engine.data.step(self.position.step)
        tokens = sum(map(length, records))
        self.meter.batch(tokens, tokens, len(records))
        stop = super()._one_step(bar)
        self.meter.step()
        return stop

    def _after_step(self, before: int, last: bool) -> None:
        """No evaluation and no checkpoint: the peer's adapter makes none either."""


class _FileOrder(Order):
    def _epoch(self, number: int) -> Indices:
        return np.concatenate(self.pools)


def _config(job: Job, rows: Seq[Row], scratch: Path) -> Config:
    file = scratch / "rows.jsonl"
    file.write_text("".join(json.dumps(row.columns(job.task)) + "\n" for row in rows), encoding="utf-8")
    loss = TRAINERS[_TRAINER[job.task]].Config(name=job.task, trainer=_TRAINER[job.task])
    if isinstance(loss, KTOTrainer.Config):
        loss.compat = Compat.trl  # the answer before as the mismatched one, whatever its prompt
    model = ModelConfig(
        name_or_path=str(job.model),
        policy_dtype=job.dtype,
        max_length=job.max_length,
        max_prompt_length=job.max_length,  # prompts are never cut: only answers, at max_length, as in TRL
        activation_checkpointing=job.checkpointing,
        batch_size=job.micro_batch,
    )
    if job.tokens_per_microbatch is not None:
        model.tokens_per_microbatch = job.tokens_per_microbatch
    return Config(
        loss=loss,
        model=model,
        datasets={"bench": DatasetConfig(path=str(file), test_path=str(file))},
        exp_name="bench",
        cache_dir=str(scratch / "runs"),
        seed=job.seed,
        lr=LEARNING_RATE,
        lr_schedule="constant",
        n_eval_examples=0,
        do_first_eval=False,
        minimum_log_interval_secs=0.0,
        cache_reference_logprobs=job.precompute,
    )
