"""TRL under the meter: its trainers as they are, the file's order kept, no saving.

Where the two frameworks cannot be made the same: TRL reports its metrics after a step's end, so each timed step holds
the report of the one before; answers are cut at max_length and prompts that fill it are dropped in both.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import AutoTokenizer, TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from bench.job import LEARNING_RATE, Job, Row, Task
from bench.meter import Meter

_CLASSES = {
    Task.sft: (SFTConfig, SFTTrainer),
    Task.dpo: (DPOConfig, DPOTrainer),
    Task.kto: (KTOConfig, KTOTrainer),
}


def train(job: Job, rows: Seq[Row], scratch: Path, meter: Meter) -> None:
    """Train on the rows in their order."""
    datasets.config.HF_DATASETS_CACHE = scratch / "datasets"  # reference values of an earlier run are not to be found
    make_config, make_trainer = _CLASSES[job.task]
    options: dict[str, Any] = {} if job.task is Task.sft else {"precompute_ref_log_probs": job.precompute}
    config = make_config(
        output_dir=str(scratch / "run"),
        per_device_train_batch_size=job.micro_batch,
        max_steps=job.warm + job.steps,
        max_length=job.max_length,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
        gradient_checkpointing=job.checkpointing,
        use_cpu=not torch.cuda.is_available(),
        bf16=job.dtype == "bfloat16",
        seed=job.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    metered = _metered(make_trainer, meter, job.micro_batch)
    trainer = metered(
        model=str(job.model),
        args=config,
        train_dataset=datasets.Dataset.from_list([row.columns(job.task) for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        callbacks=[_Reporter(meter)],
    )
    trainer.train()


def _metered(trainer: Any, meter: Meter, examples: int) -> Any:
    class Metered(trainer):  # type: ignore[misc]
        """Counts what the policy is given, and times the reference pass."""

        def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            rows, padded = inputs["input_ids"].shape
            meter.batch(int(inputs["attention_mask"].sum()), rows * padded, examples)
            return super().training_step(model, inputs, *args, **kwargs)

        def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
            with meter.reference():
                return super()._precompute_ref_logps(*args, **kwargs)

    return Metered


class _Reporter(TrainerCallback):
    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.meter.ready()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.meter.step()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs: dict[str, float] = kwargs["logs"]
        if "grad_norm" in logs:  # the last line is a summary
            self.meter.logged(float(logs["loss"]), float(logs["grad_norm"]), logs.get("logps/chosen"))
