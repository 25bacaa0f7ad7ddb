"""Reading models and tokenizers that are stored: every weight in its place, and none of their code unless asked.

transformers makes anew what a file lacks, leaves out what it has too much, and says so in a log only. Here that ends
the run, with the names. What comes with a model as Python code is run where the command line says so, never because a
stored or downloaded configuration does.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from prospect.errors import MachineError, UserError
from prospect.logs import log

# What a task adds to a model that was trained for another; all else that its files lack is a fault. Rows of new tokens
# are no weights of their own: the embedding grows by them once it is loaded.
ADDED: Mapping[str, tuple[str, ...]] = {
    "score": ("score.weight", "score.bias"),  # a reward model on a language model: its output layer, drawn by the seed
    "value": ("weight", "bias"),  # PPO's critic in v_head.safetensors, at zero
}
_NAMED = 12  # kinds of tensors that one line names
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Differences:
    """How stored weights differ from those of a model: names, and both shapes where a name has two."""

    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    reshaped: tuple[tuple[str, Shape, Shape], ...] = ()  # stored, the model's

    @classmethod
    def between(cls, stored: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> Differences:
        """By name and shape."""
        both = [name for name in wanted if name in stored and stored[name] != wanted[name]]
        return cls(
            tuple(name for name in wanted if name not in stored),
            tuple(name for name in stored if name not in wanted),
            tuple((name, stored[name], wanted[name]) for name in both),
        )

    def refuse(self, what: str) -> None:
        """Nothing, where there is no difference.

        Raises:
            UserError: what is missing, unknown or of another shape; ``what`` begins the line.
        """
        shapes = [f"{name} is {list(there)} and must be {list(here)}" for name, there, here in self.reshaped]
        parts = [f"missing: {_named(self.missing)}"] if self.missing else []
        parts += [f"not the model's: {_named(self.unknown)}"] if self.unknown else []
        parts += [*shapes[:_NAMED], *([f"and {len(shapes) - _NAMED} more"] if len(shapes) > _NAMED else [])]
        if parts:
            raise UserError(f"{what}: {'; '.join(parts)}")


def _named(names: Iterable[str]) -> str:
    """Names, those of several layers as one: ``layers.{2,3}.mlp.up_proj.weight``."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: [part.zfill(6) if part.isdigit() else part for part in name.split(".")]):
        number = _NUMBER.search(name)
        whole = name if number is None else f"{name[: number.start()]}*{name[number.end() :]}"
        groups.setdefault(whole, []).append("" if number is None else number[0])
    shown = [
        name.replace("*", numbers[0] if len(numbers) == 1 else f"{{{','.join(numbers)}}}", 1)
        for name, numbers in groups.items()
    ]
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return ", ".join(shown[:_NAMED]) + more


def read_model(auto: Any, name: str, *, trust: bool, **options: Any) -> PreTrainedModel:
    """A model with all of its weights. ``auto``: which of transformers' classes; ``trust``: run code that it brings.

    Raises:
        UserError: weights are missing, unknown or of another shape; it needs code of its own.
        MachineError: there is no such model here or on the hub.
    """
    reported = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # reported, instead of only said
    model, info = pretrained(auto, name, trust=trust, **reported, **options)
    assert isinstance(model, PreTrainedModel)
    reshaped = sorted((name, tuple(there), tuple(here)) for name, there, here in info["mismatched_keys"])
    found = Differences(tuple(info["missing_keys"]), tuple(info["unexpected_keys"]), tuple(reshaped))
    found.refuse(f"model: the weights of {name} do not fit its config.json ({type(model).__name__})")
    return model


def read_tokenizer(name: str, *, trust: bool, **options: Any) -> PreTrainedTokenizerBase:
    """A tokenizer; raises as ``pretrained`` does."""
    found = pretrained(AutoTokenizer, name, trust=trust, **options)
    assert isinstance(found, PreTrainedTokenizerBase)
    return found


def pretrained(auto: Any, name: str, *, trust: bool, **options: Any) -> Any:
    """from_pretrained with an error for people; never asks on the terminal whether code may run."""
    if trust:
        _say_trusted(name)
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return auto.from_pretrained(name, trust_remote_code=trust, **given)
    except Exception as error:  # files from elsewhere raise what they like
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "trust_remote_code" in str(error):
            raise UserError(
                f"model: {name} needs code of its own, which is run only on request: ++model.trust_remote_code=true "
                "(compare.py, label.py: --trust-remote-code)"
            ) from error
        if isinstance(error, pickle.UnpicklingError):
            raise UserError(f"model: {name} holds a pickle with more in it than tensors; it is not read") from error
        if not os.path.isdir(name):
            raise MachineError(
                f"model.name_or_path: {name} is neither a folder here nor to be had from the hub ({first})"
            ) from error
        raise UserError(f"model: {name} could not be loaded ({first})") from error


@cache
def _say_trusted(name: str) -> None:
    log.warning("trust_remote_code: Python code that comes with %s is run, with all rights of this user", name)


def read_state(model: PreTrainedModel, file: Path) -> None:
    """Give a model the weights of an old run's policy.pt.

    Raises:
        UserError: the file cannot be read safely, or holds other weights than the model's.
    """
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"model.load_from: {file} is not a checkpoint that can be read safely") from error
    if not isinstance(stored, dict) or "state" not in stored:
        raise UserError(f"model.load_from: {file} lacks 'state' (an old policy.pt has step_idx, state, metrics)")
    state = {name: tensor for name, tensor in stored["state"].items() if not _is_left_out(model, name)}
    found = Differences.between(_shapes(state), _shapes(model.state_dict()))
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    found = Differences(tuple(name for name in found.missing if name not in tied), found.unknown, found.reshaped)
    found.refuse(f"model.load_from: {file} is of another architecture than {type(model).__name__}")
    model.load_state_dict(state, strict=False)  # tied weights may stand there once


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _is_left_out(model: nn.Module, name: str) -> bool:
    """Whether older versions stored a buffer that is computed now: angles of rotary positions, causal masks."""
    patterns = [r"rotary_emb\.inv_freq$", *(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())]
    return any(re.search(pattern, name) for pattern in patterns)
