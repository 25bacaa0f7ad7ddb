"""The typed configuration: every key a user may set, its type and its default.

``config/*.yaml`` is composed by Hydra and merged onto these dataclasses; what does not fit is refused there. The YAML
carries the comments for users; the defaults stand here once and a test holds the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Mode(StrEnum):
    """What a command does: train.py knows train, data and explain, eval.py the others."""

    train = "train"
    data = "data"
    explain = "explain"
    sample = "sample"
    eval = "eval"
    alpacaeval = "alpacaeval"
    mtbench = "mtbench"
    probe = "probe"
    merge = "merge"
    push = "push"


class Split(StrEnum):
    """Part of a data set. A source without a validation part refuses that name."""

    train = "train"
    validation = "validation"
    test = "test"
    all = "all"


class Truncation(StrEnum):
    """Which end of an over-long prompt survives; ``auto`` leaves it to the data source."""

    auto = "auto"
    keep_start = "keep_start"
    keep_end = "keep_end"


class TrainOn(StrEnum):
    """Which answers of a conversation SFT trains."""

    last = "last"
    all = "all"


class LengthNorm(StrEnum):
    """What a loss compares of two answers: log-probabilities a token, or of the whole answer."""

    mean = "mean"
    sum = "sum"


class DType(StrEnum):
    """Precision of a model's computations."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class HeadKernel(StrEnum):
    """What computes the output layer between and beside its matrix products."""

    torch = "torch"  # operations, one after the other
    compiled = "compiled"  # the same, compiled into few kernels
    cut = "cut"  # cut-cross-entropy's, which hold no logits


class Quantization(StrEnum):
    """How frozen weights are kept in fewer bits."""

    nf4 = "nf4"


class WandbMode(StrEnum):
    """What wandb.init takes."""

    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(slots=True)
class LossConfig:
    """What every loss has; a trainer's own ``Config`` inherits this and adds its hyperparameters."""

    name: str = ""
    trainer: str = ""
    dataloader: str | None = None
    use_reference_model: bool | None = None


@dataclass(slots=True)
class ModelConfig:
    """The model, its tokenizer and what one optimizer step holds."""

    name: str = ""
    name_or_path: str | None = None
    revision: str | None = None
    tokenizer_name_or_path: str | None = None
    load_from: str | None = None
    architecture: dict[str, Any] | None = None
    trust_remote_code: bool = False
    weights_dtype: DType = DType.float32
    policy_dtype: DType | None = None
    reference_dtype: DType | None = None
    max_grad_norm: float | None = 1.0
    v_head_max_grad_norm: float | None = None
    max_length: int = 2048
    max_prompt_length: int = 1024
    activation_checkpointing: bool = False
    compile: bool = False
    head_kernel: HeadKernel | None = None
    share_prompts: bool = True
    batch_size: int = 32
    gradient_accumulation_steps: int = 1
    tokens_per_microbatch: int | None = None
    eval_batch_size: int = 16
    use_flash_attention: bool = False

    @property
    def budget(self) -> int:
        """Tokens at once, where they are not to be found by trying."""
        return self.tokens_per_microbatch or 1536


@dataclass(slots=True)
class PeftConfig:
    """An adapter, trained instead of the model's own weights; ``r`` null: there is none."""

    r: int | None = None
    alpha: float = 16
    dropout: float = 0.0
    target_modules: Any = "all-linear"  # or a list of names
    use_dora: bool = False
    quantization: Quantization | None = None
    double_quant: bool = True
    merge_on_export: bool = False


@dataclass(slots=True)
class DatasetConfig:
    """One data set: where its rows come from and how much of them a run sees."""

    source: str = "files"
    path: str | list[str] | None = None  # files, patterns among them, or one repository on the hub
    test_path: str | list[str] | None = None
    subset: str | None = None
    revision: str | None = None
    weight: float = 1.0
    test_fraction: float = 0.1
    columns: dict[str, str | None] = field(default_factory=dict)  # null: no column holds it


@dataclass(slots=True)
class WandbConfig:
    """Weights & Biases; offline unless asked."""

    enabled: bool = False
    entity: str | None = None
    project: str = "prospect"
    mode: WandbMode = WandbMode.offline


@dataclass(slots=True)
class TensorboardConfig:
    """TensorBoard event files in the run folder."""

    enabled: bool = False


@dataclass(slots=True)
class ParallelConfig:
    """Processes of this node; null: one per visible GPU, one on a CPU."""

    processes: int | None = None


@dataclass(slots=True)
class Config:
    """A whole run. ``loss`` is an instance of the chosen trainer's own ``Config``. ``environment``: by dotted key, the
    text of values that came from environment variables, which is written down in their place."""

    environment: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    loss: Any = None
    model: ModelConfig = field(default_factory=ModelConfig)
    datasets: dict[str, DatasetConfig] = field(default_factory=dict)
    peft: PeftConfig = field(default_factory=PeftConfig)

    exp_name: str | None = None
    mode: Mode = Mode.train
    seed: int = 1
    debug: bool = False
    cache_dir: str = "runs"
    local_run_dir: str | None = None

    lr: float = 5e-6
    optimizer: str = "AdamW"
    optimizer_args: dict[str, Any] = field(default_factory=dict)
    optimizer_in_backward: bool = False
    lr_schedule: str = "linear"
    lr_schedule_args: dict[str, Any] = field(default_factory=dict)
    warmup: float = 0.1
    warmup_steps: int | None = None
    n_epochs: int | None = 1
    n_examples: int | None = None
    n_eval_examples: int | None = 512
    eval_split: Split = Split.test
    do_first_eval: bool = True
    eval_every: int = 20_000
    save_every: int | None = None
    intermediate_checkpoints: bool = False
    keep_checkpoints: int = 2
    best_metric: str = "loss"
    minimum_log_interval_secs: float = 1.0
    cache_reference_logprobs: bool = True
    sync_reference_every: int | None = None
    sync_reference_mixing: float = 1.0
    target_kl: float | None = None
    probes: list[str] = field(default_factory=list)

    chat_template: str = "auto"
    chat_tokens_kept: list[str] = field(default_factory=list)
    human_prefix: str = "\n<|user|>\n"
    human_suffix: str = ""
    assistant_prefix: str = "\n<|assistant|>\n"
    assistant_suffix: str = ""
    truncation_mode: Truncation = Truncation.auto
    frac_unique_desirable: float = 1.0
    frac_unique_undesirable: float = 1.0

    split: Split = Split.test
    out: str | None = None
    repo: str | None = None
    private: bool = True

    n_samples: int | None = 128
    samples_dir: str = "samples"
    samples_per_prompt: int = 1
    saved_policy: str | None = "LATEST"
    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int | None = None
    category_temperatures: dict[str, float] = field(default_factory=dict)

    wandb: WandbConfig = field(default_factory=WandbConfig)
    tensorboard: TensorboardConfig = field(default_factory=TensorboardConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
