"""The policy that eval.py works with: where it lies, its text, its weights, and the key of what is sampled from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from prospect.checkpoint.commit import MANIFEST, file_hash
from prospect.checkpoint.origin import Origin, resolve
from prospect.checkpoint.run import Run
from prospect.config.schema import Config, PeftConfig
from prospect.errors import UserError
from prospect.model.load import Precision, load_model
from prospect.parallel import World
from prospect.sampling.room import longest_answer
from trainers import make_trainer
from trainers.setup import Text, prepare_text

_RULE = 2  # raise when the same settings come to other prompts


def policy_origin(config: Config) -> Origin | None:
    """What ``saved_policy`` names: a folder of the run, or any model; None is the model before any training."""
    if config.saved_policy is None:
        return None
    inside = Run.of(config).folder / config.saved_policy
    if inside.exists() or config.saved_policy == "LATEST":
        if not inside.exists():
            raise UserError(f"saved_policy: {Run.of(config).folder} holds no LATEST; has the run trained?")
        return resolve(str(inside.absolute()), Path(config.cache_dir))
    return resolve(config.saved_policy, Path(config.cache_dir))


def unaligned(config: Config) -> Config:
    """The configuration of the model before any training."""
    return replace(config, model=replace(config.model, load_from=None))


def source_of(config: Config, origin: Origin | None) -> Config:
    """The configuration to load a policy by: a trained one comes whole, its adapter merged."""
    return unaligned(config) if origin is None else replace(config, peft=PeftConfig())


def text_of(config: Config, origin: Origin | None) -> Text:
    """Tokenizer and chat template that go with a policy; the model before any training is asked in the run's way."""
    latest = Run.of(config).folder / "LATEST"
    if origin is None and latest.is_dir():
        origin = Origin(latest, is_state_dict=False)
    return prepare_text(config, origin, make_trainer(config).control_tokens, Run.of(config).chat_day())


def sampling_model(config: Config, origin: Origin | None, text: Text, world: World) -> PreTrainedModel:
    """The policy as transformers runs it, in the dtype that it computes in."""
    model = load_model(source_of(config, origin), origin, text.tokenizer, "sdpa", text.chat.control)
    nn.Module.to(model, world.device, Precision.of(config.model.policy_dtype, world.device).compute).eval()
    return model


def samples_key(config: Config, origin: Origin | None, text: Text, *more: object) -> str:
    """Hash of everything that decides the samples: weights, prompts, drawing."""
    weights = "unaligned"
    if origin is not None:
        manifest = origin.path / MANIFEST
        weights = file_hash(manifest if manifest.is_file() else next(origin.path.glob("*.safetensors"), origin.path))
    drawing = (_RULE, config.seed, config.temperature, config.top_p, longest_answer(config))
    data = {name: asdict(dataset) for name, dataset in config.datasets.items()}
    control = text.chat.control and asdict(text.chat.control)
    drawn = (config.split, config.n_samples, config.samples_per_prompt, config.model.policy_dtype)
    parts = [weights, drawing, data, *drawn, control]
    return hashlib.sha256(json.dumps([*parts, *more], sort_keys=True).encode()).hexdigest()[:32]
