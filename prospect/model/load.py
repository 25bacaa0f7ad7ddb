"""Load a policy and its tokenizer: from the hub, a folder, an earlier run, an old policy.pt, or made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from prospect.checkpoint.lineage import Base, base_of, located
from prospect.checkpoint.origin import Origin, resolve
from prospect.config.schema import Config, DType, ModelConfig
from prospect.errors import MachineError, UserError
from prospect.logs import log
from prospect.memory import keep_freed_memory
from prospect.model import attention
from prospect.model.adapter import Adapter, is_scorer, merged, put_back, round_as_quantized
from prospect.model.compiled import compile_on
from prospect.model.control import ControlTokens, add_control_rows
from prospect.model.policy import Policy
from prospect.model.pretrained import pretrained, read_model, read_state, read_tokenizer
from prospect.model.products import use_products
from prospect.model.remade import remake_activations
from prospect.model.rotary import use_rotary

_EOS, _PAD = "<|endoftext|>", "<|pad|>"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Precision:
    """Dtype of the computations; weights and optimizer have one of their own."""

    compute: torch.dtype
    said: str = ""  # the device and why it computes in this dtype

    @classmethod
    def of(cls, wanted: DType | None, device: torch.device) -> Precision:
        """As configured, else bfloat16 on a GPU that has it and float32 elsewhere."""
        if device.type != "cuda":
            chosen = torch.bfloat16 if wanted is DType.bfloat16 else torch.float32
            return cls(chosen, f"{device.type} ({torch.backends.cpu.get_cpu_capability()})")
        properties = torch.cuda.get_device_properties(device)
        major, minor = torch.cuda.get_device_capability(device)
        name = f"{properties.name} (capability {major}.{minor}, {properties.total_memory / 2**30:.0f} GiB)"
        if wanted is DType.bfloat16 and major < 8:
            raise MachineError(f"model.policy_dtype: {name} has no bfloat16; set model.policy_dtype=float32")
        if wanted is not None:
            return cls(torch.bfloat16 if wanted is DType.bfloat16 else torch.float32, f"{name}, dtype as configured")
        if major < 8:
            return cls(torch.float32, f"{name}, too old for bfloat16; float16 would lose small gradients")
        return cls(torch.bfloat16, f"{name}, which has bfloat16")

    @property
    def autocast(self) -> torch.dtype | None:
        """What autocast must be set to, if anything."""
        return None if self.compute == torch.float32 else self.compute


def origin_of(config: Config) -> Origin | None:
    """What ``model.load_from`` names, if it is set."""
    return resolve(config.model.load_from, Path(config.cache_dir)) if config.model.load_from else None


def load_tokenizer(
    model: ModelConfig, origin: Origin | None, trained: Callable[[int], PreTrainedTokenizerBase]
) -> PreTrainedTokenizerBase:
    """The tokenizer of the weights: a loaded run's own wins; a random model's is ``trained``, to a number of tokens."""
    trust = model.trust_remote_code
    if origin is not None:
        folders = [origin.path] if not origin.is_state_dict else [origin.path.parent, origin.path.parent.parent]
        for folder in folders:
            if (folder / "tokenizer_config.json").is_file():
                return read_tokenizer(str(folder), trust=trust)
    if origin is not None and origin.is_adapter:
        return read_tokenizer(base_of(origin.path).name, trust=trust)
    name = model.tokenizer_name_or_path or model.name_or_path
    if name is not None:
        return read_tokenizer(name, trust=trust, revision=model.revision)
    return trained(int((model.architecture or {}).get("vocab_size", 1024)))


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer: any text can be written with it, and the same texts give the same tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_EOS, _PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _fast(tokenizer)


def kept_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """A tokenizer of ``train_tokenizer`` whose backend was written to ``file``."""
    return _fast(Tokenizer.from_file(str(file)))


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_EOS, pad_token=_PAD)


def load_model(
    config: Config,
    origin: Origin | None,
    tokenizer: PreTrainedTokenizerBase,
    implementation: str,
    control: ControlTokens | None = None,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """Weights in ``dtype``, dropout off; an adapter merged into its model, and a row for each control token.

    Raises:
        UserError: no model is named, a checkpoint of another architecture, a reward model.
    """
    if origin is not None and origin.is_adapter and is_scorer(origin.path):
        raise _scores(origin.path)
    model = weights(config, origin, tokenizer, implementation, dtype)
    if control is not None:
        add_control_rows(model, tokenizer, control, config.seed)
    return fitted(model, config, tokenizer)


def fitted(model: PreTrainedModel, config: Config, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model with its dropout off, if tokenizer and lengths are such that it can be trained.

    Raises:
        UserError: more tokens than rows in the embedding, or sequences longer than the model's.
    """
    rows = model.config.get_text_config().vocab_size
    if len(tokenizer) > rows:
        raise UserError(f"model: the tokenizer has {len(tokenizer)} tokens, the embedding {rows} rows: not a pair")
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and config.model.max_length > positions:
        raise UserError(f"model.max_length: {config.model.max_length} is beyond the model's {positions} positions")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


Load = Callable[[Config, Origin | None, PreTrainedTokenizerBase, str, torch.dtype], PreTrainedModel]


def load_base(
    config: Config, base: Base, adapter: Path, tokenizer: PreTrainedTokenizerBase, implementation: str, load: Load
) -> PreTrainedModel:
    """The model under an adapter with the values that it had in training, in float32."""
    origin = located(base, adapter, Path(config.cache_dir))
    spec = replace(config.model, name_or_path=base.name, revision=base.revision, architecture=None)
    model = load(replace(config, model=spec), origin, tokenizer, implementation, _DTYPES[base.dtype])
    if base.quantization is not None:
        round_as_quantized(model, base.double_quant)
    nn.Module.to(model, torch.float32)
    return model


def load_with_adapter(
    config: Config, folder: Path, tokenizer: PreTrainedTokenizerBase, implementation: str, load: Load | None = None
) -> Adapter:
    """An adapter in the model that it was trained in, in float32; ``load``: how that is loaded, if not ``weights``."""
    base = base_of(folder)
    model = load_base(config, base, folder, tokenizer, implementation, load or weights)
    adapter = put_back(model, folder, base, trained=False)
    learned = {str(tokenizer.convert_ids_to_tokens(i)): i for i in adapter.new_tokens()}
    if learned:
        model.config.control_tokens = {**(getattr(model.config, "control_tokens", None) or {}), **learned}
    return adapter


def weights(
    config: Config,
    origin: Origin | None,
    tokenizer: PreTrainedTokenizerBase,
    implementation: str,
    dtype: torch.dtype,
) -> PreTrainedModel:
    """A model as it comes, in ``dtype``; an adapter merged into its own."""
    spec = config.model
    form = {"dtype": dtype, "attn_implementation": implementation}
    model: PreTrainedModel
    if origin is not None and origin.is_adapter:
        log.info("adapter: %s is merged into %s", origin.path, base_of(origin.path).name)
        model = merged(load_with_adapter(config, origin.path, tokenizer, implementation))
        _narrow(model, dtype)
    elif origin is not None and not origin.is_state_dict:
        model = _language_model(str(origin.path), spec.trust_remote_code, form)
    elif spec.name_or_path is not None:
        model = _language_model(spec.name_or_path, spec.trust_remote_code, {**form, "revision": spec.revision})
        if model._hf_peft_config_loaded:  # transformers has put it on: every weight would be trained, and none merged
            raise UserError(
                f"model.name_or_path: {spec.name_or_path} is an adapter; give its folder as model.load_from"
            )
    elif spec.architecture is not None:
        torch.manual_seed(config.seed)
        special = ("bos_token_id", "eos_token_id", "pad_token_id")
        shape = AutoConfig.for_model(**{**spec.architecture, **{name: getattr(tokenizer, name) for name in special}})
        form["dtype"] = torch.float32
        model = AutoModelForCausalLM.from_config(shape, trust_remote_code=False, **form)
        _narrow(model, dtype)
    else:
        raise UserError("model: neither name_or_path nor architecture is set")
    if origin is not None and origin.is_state_dict:
        read_state(model, origin.path)
    return model


def _language_model(name: str, trust: bool, form: Mapping[str, Any]) -> PreTrainedModel:
    shape = pretrained(AutoConfig, name, trust=trust, revision=form.get("revision"))
    if any("SequenceClassification" in kind for kind in shape.architectures or ()):
        raise _scores(name)
    return read_model(AutoModelForCausalLM, name, trust=trust, **form)


def _scores(name: object) -> UserError:
    return UserError(f"model: {name} is a reward model: it scores answers and writes none")


def _narrow(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """The parameters alone, as from_pretrained does: a buffer holds the angles of rotary positions."""
    for p in model.parameters():
        p.data = p.data.to(dtype)


def precision_of(config: Config, device: torch.device, trained: bool = True) -> Precision:
    """Dtype of the policy's or of the reference model's computations."""
    model = config.model
    policy = model.policy_dtype or (DType.bfloat16 if model.weights_dtype is DType.bfloat16 else None)
    return Precision.of(policy if trained else model.reference_dtype or policy, device)


def weights_dtype_of(config: Config, precision: Precision) -> torch.dtype:
    """Dtype that weights are kept in: what only an adapter will change, in that of the computations."""
    return _DTYPES[config.model.weights_dtype] if config.peft.r is None else precision.compute


def make_policy(
    model: PreTrainedModel, config: Config, device: torch.device, trained: bool = True, kind: type[Policy] = Policy
) -> Policy:
    """Put a model on its device, ready to compute."""
    precision = precision_of(config, device, trained)
    nn.Module.to(model, device)
    if device.type == "cpu":
        keep_freed_memory()
        use_products(model)
    if trained and config.model.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if not (config.model.compile and compile_on(device, model)):  # compiled regions choose themselves what they keep
        remake_activations(model)
        use_rotary(model)
    model.train(trained)
    return kind(model, device, precision.autocast, share_prompts=config.model.share_prompts)


def attention_for(config: Config, device: torch.device) -> tuple[str, str]:
    """The attention implementation of this run, and how to call it in front of its user."""
    return attention.choose(config.model.use_flash_attention, device, precision_of(config, device).compute)


def own_stops(spec: ModelConfig, origin: Origin | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer by the model's own generation config: its EOS, or each of a list of them.

    Ids that are no added tokens of the tokenizer are left out: a config made by default names some.
    """
    name = str(origin.path) if origin is not None and not origin.is_state_dict else spec.name_or_path
    if name is None:
        return []
    try:
        found = GenerationConfig.from_pretrained(name, revision=spec.revision or "main")
    except (OSError, ValueError):  # there is none
        return []
    ids = found.eos_token_id if isinstance(found.eos_token_id, list) else [found.eos_token_id]
    return [i for i in ids if i in tokenizer.added_tokens_decoder]
