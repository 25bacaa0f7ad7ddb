"""Adapters: small matrices that are trained in a frozen model. LoRA, DoRA, and both over weights in 4 bits (QLoRA).

LoRA: W x + (alpha / r) B A x, B = 0 at the start. Hu et al. 2021 (arXiv 2106.09685)
DoRA: m (W + (alpha / r) B A) / |W + (alpha / r) B A|, row by row. Liu et al. 2024 (arXiv 2402.09353)
QLoRA: W in blocks of 64 NormalFloat numbers of 4 bits. Dettmers et al. 2023 (arXiv 2305.14314)

peft's layers stand inside the transformers model, which stays what it is: packed attention and the tiled head run as
they do without. With the adapter off it is the reference model.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from prospect.checkpoint.lineage import Base
from prospect.config.schema import PeftConfig
from prospect.errors import MachineError, UserError
from prospect.model.pretrained import Differences

if TYPE_CHECKING:  # both take seconds to import, and most runs need neither
    from peft import PeftModel

_OURS = "default"  # peft's name for a model's only adapter
_SCORES = "SEQ_CLS"  # its name for a model that scores; what it calls score is trained and saved


@dataclass(frozen=True, slots=True)
class Adapter:
    """What is trained, and the model that it stands on."""

    wrapper: PeftModel
    base: Base

    @contextmanager
    def off(self) -> Iterator[None]:
        """The model as it was before: the reference."""
        layers: Any = self.wrapper.base_model
        layers.disable_adapter_layers()
        try:
            yield
        finally:
            layers.enable_adapter_layers()

    def save(self, folder: Path) -> None:
        """adapter_config.json, adapter_model.safetensors, and what they stand on."""
        config: Any = self.wrapper.peft_config[_OURS]
        config.base_model_name_or_path, config.revision = self.base.name, self.base.revision
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)  # a set's order differs from process to process
        self.wrapper.save_pretrained(str(folder), save_embedding_layers=False)
        self.base.write(folder)

    def new_tokens(self) -> list[int]:
        """Ids of the tokens whose rows it has trained."""
        config: Any = self.wrapper.peft_config[_OURS]
        return _ids(config.trainable_token_indices)

    def line(self) -> str:
        """What it is, for the log."""
        config: Any = self.wrapper.peft_config[_OURS]
        trained = sum(p.numel() for p in self.wrapper.parameters() if p.requires_grad)
        kind = "DoRA" if config.use_dora else "LoRA"
        bits = f", frozen weights in {self.base.quantization}" if self.base.quantization else ""
        return f"{kind} of rank {config.r} on {self.base.name}: {trained / 1e6:.4g}M parameters are trained{bits}"


def put_on(
    model: PreTrainedModel, peft: PeftConfig, base: Base, new_tokens: Sequence[int] = (), scores: bool = False
) -> Adapter:
    """A fresh adapter, which changes nothing yet.

    ``new_tokens``: ids whose rows in the embedding (and in the output layer) are trained and saved with it. ``scores``:
    the model is a reward model, whose output layer is trained and saved with it.

    Raises:
        UserError: ``peft.target_modules`` names what is not there, or what must stay as it is.
    """
    from peft import LoraConfig, get_peft_model

    assert peft.r is not None
    rows = {name: list(new_tokens) for name in _token_layers(model)} if new_tokens else None
    config = LoraConfig(
        task_type=_SCORES if scores else "CAUSAL_LM",
        r=peft.r,
        lora_alpha=peft.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=peft.dropout,
        target_modules=peft.target_modules,
        use_dora=peft.use_dora,
        trainable_token_indices=rows,
    )
    outer = model.get_input_embeddings(), model.get_output_embeddings()
    try:
        with _quietly():
            wrapper = get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"peft.target_modules: {str(error).splitlines()[0][:300]}") from error
    if not new_tokens and (model.get_input_embeddings(), model.get_output_embeddings()) != outer:
        raise UserError("peft.target_modules: embedding and output layer cannot carry an adapter here")
    return Adapter(wrapper, base)


def put_back(model: PreTrainedModel, folder: Path, base: Base, trained: bool = True) -> Adapter:
    """The adapter of a folder, to be trained on or only to be used.

    Raises:
        UserError: it does not fit the model.
    """
    from peft import PeftModel, get_peft_model_state_dict

    kind = json.loads((folder / "adapter_config.json").read_text()).get("peft_type")
    if kind != "LORA":
        raise UserError(f"model.load_from: {folder} is an adapter of kind {kind}; LoRA (and DoRA) can be read")
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise UserError(f"model.load_from: {folder} holds no {file.name}")
    _make_room(model, folder)
    try:
        with _quietly():
            wrapper = PeftModel.from_pretrained(model, str(folder), is_trainable=trained)
        stored = load_file(file)
    except (ValueError, RuntimeError, OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:400]
        raise UserError(f"model.load_from: {folder} does not fit {base.name} ({reason})") from error
    found = get_peft_model_state_dict(wrapper, save_embedding_layers=False)
    shapes = [{name: tuple(tensor.shape) for name, tensor in some.items()} for some in (stored, found)]
    Differences.between(*shapes).refuse(f"model.load_from: {folder} does not fit {base.name}")
    return Adapter(wrapper, base)


def is_scorer(folder: Path) -> bool:
    """Whether an adapter is of a reward model."""
    return bool(json.loads((folder / "adapter_config.json").read_text()).get("task_type") == _SCORES)


def merged(adapter: Adapter) -> PreTrainedModel:
    """The model with the adapter's change in its own weights; every weight can be trained again."""
    model: Any = adapter.wrapper
    try:
        plain = model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise UserError(f"the adapter on {adapter.base.name} cannot be merged ({error})") from error
    assert isinstance(plain, PreTrainedModel)
    return plain.requires_grad_(True)


def quantize(model: PreTrainedModel, peft: PeftConfig, compute: torch.dtype, device: torch.device) -> None:
    """Linear layers but the output layer in 4 bits, on ``device``."""
    bits = bitsandbytes()
    for name, linear in _inner_linears(model):
        small = bits.nn.Linear4bit(
            linear.in_features, linear.out_features, bias=False, compute_dtype=compute, quant_type="nf4", device="meta"
        )
        small.weight = bits.nn.Params4bit(
            linear.weight.data,
            requires_grad=False,
            compress_statistics=peft.double_quant,
            quant_type="nf4",
            module=small,
        ).to(device)
        small.bias = linear.bias
        small.support_avx512bf16_for_cpu = False  # it would repack the weights in evaluation, with coarser scales
        model.set_submodule(name, small)
    model.__dict__["is_loaded_in_4bit"] = True  # peft asks for it


def round_as_quantized(model: PreTrainedModel, double_quant: bool) -> None:
    """The weights that 4 bits leave of a model, at full width again: what an adapter over 4 bits was trained on."""
    functional = bitsandbytes().functional
    for _, linear in _inner_linears(model):
        small, state = functional.quantize_4bit(linear.weight.data, compress_statistics=double_quant, quant_type="nf4")
        linear.weight.data = functional.dequantize_4bit(small, state).to(linear.weight.dtype)


def reference_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the model without its adapter, under the names that they have in it."""
    return {
        name.replace(".token_adapter", "").replace(".base_layer", "").replace(".original_module", ""): tensor
        for name, tensor in state.items()
        if not any(own in name for own in ("lora_", "trainable_tokens_", "modules_to_save"))
    }


def vocabulary(model: PreTrainedModel) -> int:
    """Rows of the embedding."""
    rows = model.get_input_embeddings().weight
    assert isinstance(rows, Tensor)
    return len(rows)


def covers_rows(layer: nn.Module) -> bool:
    """Whether a layer is peft's cover on one in which the rows of some tokens are trained."""
    return type(layer).__name__ == "TrainableTokensWrapper"


def uncovered(layer: nn.Module | None) -> nn.Module | None:
    """A layer, or its copy that an adapter trains in its stead."""
    cover: Any = layer
    return cover.modules_to_save[_OURS] if type(layer).__name__ == "ModulesToSaveWrapper" else layer


def output_weights(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of an output layer, with the rows that an adapter has trained while it is on."""
    if isinstance(layer, nn.Linear):
        return layer.weight, layer.bias
    rows: Any = layer.token_adapter
    plain = rows.base_layer
    return plain.weight if rows.disable_adapters else rows.get_merged_weights(rows.active_adapters), plain.bias


def bitsandbytes() -> Any:
    """The package, for weights in 4 bits and optimizers in 8.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import bitsandbytes
    except ImportError as error:
        raise MachineError("bitsandbytes is not installed: pip install 'prospect[gpu]'") from error
    return bitsandbytes


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what peft and transformers tell each other about their names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _inner_linears(model: PreTrainedModel) -> list[tuple[str, nn.Linear]]:
    outer = (model.get_output_embeddings(), getattr(model, "score", None))
    return [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and not any(m is x for x in outer)]


def _token_layers(model: PreTrainedModel) -> list[str]:
    """Names of the layers with a row for each token; a tied output layer follows the embedding by itself."""
    wanted = [model.get_input_embeddings()]
    if not model.config.get_text_config().tie_word_embeddings:
        wanted.append(model.get_output_embeddings())
    return [name for name, module in model.named_modules() if any(module is layer for layer in wanted)]


def _make_room(model: PreTrainedModel, folder: Path) -> None:
    """Rows for the tokens that an adapter has added; their values come with it."""
    from peft import PeftConfig as Stored

    most = max(_ids(getattr(Stored.from_pretrained(str(folder)), "trainable_token_indices", None)), default=-1) + 1
    if most > vocabulary(model):
        model.resize_token_embeddings(most, mean_resizing=False)


def _ids(rows: dict[str, list[int]] | list[int] | None) -> list[int]:
    """Token ids as peft has them: by layer, or for the embedding alone."""
    return sorted({i for ids in (rows.values() if isinstance(rows, dict) else [rows or []]) for i in ids})
