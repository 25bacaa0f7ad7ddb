"""Everything a trainer computes with, put together from a configuration: tokenizer, data, policy, reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from dataloaders.loader import Data, load, one_sided
from dataloaders.packing import pack, sequences
from dataloaders.tokenizer import own_tokenizer
from prospect.checkpoint.commit import committed
from prospect.checkpoint.lineage import Base, base_of, located
from prospect.checkpoint.origin import Origin, origin_at
from prospect.checkpoint.run import Run
from prospect.config.schema import Config
from prospect.errors import UserError, nearest
from prospect.logs import log
from prospect.model import template
from prospect.model.adapter import put_back, put_on, quantize
from prospect.model.control import ControlTokens, add_control_tokens, control_ids
from prospect.model.export import save_policy
from prospect.model.load import (
    attention_for,
    load_model,
    load_tokenizer,
    make_policy,
    origin_of,
    own_stops,
    precision_of,
    weights_dtype_of,
)
from prospect.model.policy import Policy
from prospect.model.score import ScorePolicy, load_scorer
from prospect.model.template import ChatFormat
from prospect.model.value_head import ValueHead
from prospect.parallel import World
from prospect.reference import (
    AdapterReference,
    CachedReference,
    LiveReference,
    Reference,
    ReferenceStore,
    files_digest,
    hub_digest,
    weights_digest,
)
from trainers.basic import BasicTrainer, ModelHead
from trainers.reference_pass import Draw, fill, largest_difference


@dataclass(frozen=True, slots=True)
class Text:
    """The tokenizer with the run's chat template installed."""

    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat


def prepare_text(
    config: Config, origin: Origin | None, control: ControlTokens | None = None, day: date | None = None
) -> Text:
    """Load (or train) the tokenizer, add the trainer's control tokens, settle on the chat template; says which.

    ``day`` is what a template that writes the date takes for today.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    tokenizer = load_tokenizer(config.model, origin, partial(own_tokenizer, config))
    if control is not None:
        add_control_tokens(tokenizer, control)
    which = template.install(tokenizer, config)
    log.info("tokenizer: %d tokens, %s", len(tokenizer), which)
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    for name in config.chat_tokens_kept:
        if name not in added:
            raise UserError(f"chat_tokens_kept: {name} is no added token of the tokenizer{nearest(name, added)}")
    stops = own_stops(config.model, origin, tokenizer)
    chat = ChatFormat(tokenizer, control, config.chat_tokens_kept, stops, day)
    for warning in template.doubts(chat):
        log.warning("chat template: %s", warning)
    if chat.uses_date:
        log.info("chat template: writes the date; today is %s in all prompts of this run", chat.day)
    return Text(tokenizer, chat)


def prepare_data(config: Config, trainer: BasicTrainer, text: Text, evaluating: bool = False) -> Data:
    """Open the token stores and say what is in them."""
    data = load(config, trainer.records, trainer.balanced, text.chat, evaluating)
    kinds = (
        [("evaluation", data.evaluation)] if evaluating else [("train", data.train), ("evaluation", data.evaluation)]
    )
    for kind, stores in kinds:
        for name, store in zip(stores.names, stores.stores, strict=True):
            log.info("data: %s (%s): %s", name, kind, store.report.line())
            for remark in store.report.remarks():
                log.warning("data: %s (%s): %s", name, kind, remark)
    if not evaluating:
        trainer.learn_counts(*data.kinds())
        if warning := one_sided(data.kinds(), trainer.records, config.loss.name):
            log.warning("data: %s", warning)
        shared = np.intersect1d(data.train.joined("prompt_keys"), data.evaluation.joined("prompt_keys"))
        log.info("data: %d prompts are in both training and evaluation", len(shared))
        log.info(
            "data: %d records an epoch, %d examples in %d steps of %d",
            data.order.epoch_length,
            data.n_examples,
            data.n_steps,
            config.model.batch_size,
        )
        if trainer.guidance is not None:
            log.info("guidance: %s", trainer.guidance.beside(data.n_steps, data.n_examples))
    return data


def prepare_policy(
    config: Config,
    origin: Origin | None,
    text: Text,
    world: World,
    trained: bool = True,
    head: ModelHead = "tokens",
    continues: bool = False,
) -> Policy:
    """Load the weights onto this process's device, with the head that a trainer asks for; says dtype and attention.

    What only an adapter will change is kept in the dtype of the computations, or in 4 bits. ``continues``: the origin
    is a policy of this run.
    """
    implementation, said = attention_for(config, world.device)
    precision = precision_of(config, world.device, trained)
    dtype = weights_dtype_of(config, precision)
    if head == "score":
        model = load_scorer(config, origin, text.tokenizer, text.chat.stop_ids, implementation, dtype)
    else:
        model = load_model(config, origin, text.tokenizer, implementation, text.chat.control, dtype)
    size = sum(p.numel() for p in model.parameters())
    if config.peft.quantization is not None:
        quantize(model, config.peft, precision.compute, world.device)
    policy = make_policy(model, config, world.device, trained, ScorePolicy if head == "score" else Policy)
    policy.squares = head == "squares"
    if head == "value":
        value_head = ValueHead.of(policy.head.linear.in_features, origin.path if origin else None, continues)
        policy.value_head = value_head.to(world.device)
    if trained:
        log.info("device: %s", precision.said)
        compute = str(policy.autocast or policy.model.dtype).removeprefix("torch.")
        kept = str(policy.model.dtype).removeprefix("torch.")
        log.info(
            "policy: %s, %.4gM parameters in %s on %s (%d process%s), computing in %s; attention: %s",
            type(policy.model).__name__,
            size / 1e6,
            kept,
            world.device,
            world.size,
            "" if world.size == 1 else "es",
            compute,
            said,
        )
    return policy


def prepare_trained(
    config: Config, start: Origin | None, saved: Path | None, text: Text, world: World, head: ModelHead = "tokens"
) -> Policy:
    """The policy that a run trains: all of a model, or an adapter in it with the rows of control tokens.

    ``saved`` is where the run continues from.
    """
    if config.peft.r is None:
        origin = start if saved is None else origin_at(saved)
        return prepare_policy(config, origin, text, world, head=head, continues=saved is not None)
    policy = prepare_policy(config, start, text, world, head=head)
    if saved is not None and policy.value_head is not None:
        policy.value_head = ValueHead.of(policy.head.linear.in_features, saved, continues=True).to(world.device)
    if saved is not None:
        base = base_of(saved)
        located(base, saved, Path(config.cache_dir))  # refuses one that has changed
        adapter = put_back(policy.model, saved, base)
    else:
        commit = getattr(policy.model.config, "_commit_hash", None)  # of models from the hub
        found = world.from_main(_base(config, start, text, commit) if world.is_main else None)
        assert found is not None
        dtype = str(policy.model.dtype).removeprefix("torch.")
        kept = replace(found, dtype=dtype, quantization=config.peft.quantization, double_quant=config.peft.double_quant)
        torch.manual_seed(config.seed)
        rows = control_ids(text.tokenizer, text.chat.control) if text.chat.control else []
        adapter = put_on(policy.model, config.peft, kept, rows, scores=head == "score")
    log.info("adapter: %s", adapter.line())
    return replace(policy, adapter=adapter, dropout=config.peft.dropout)


def _base(config: Config, start: Origin | None, text: Text, commit: str | None) -> Base:
    """What an adapter of this run stands on; a model that is in no folder is kept in the run's own."""
    cache_dir, name = Path(config.cache_dir), config.model.name_or_path
    if start is not None and not start.is_state_dict:
        return Base.of_folder(start.path, cache_dir)
    if start is None and name is not None and Path(name).is_dir():
        return Base.of_folder(Path(name), cache_dir)
    if start is None and name is not None:
        return Base(name, config.model.revision or commit)
    folder = Run.of(config).folder / "BASE"
    if not folder.is_dir():
        with committed(folder) as building:
            model = load_model(config, start, text.tokenizer, "sdpa", text.chat.control)
            save_policy(model, text.tokenizer, text.chat.stop_ids, config, building)
    return Base.of_folder(folder, cache_dir)


def settle_sharing(policy: Policy, data: Data) -> None:
    """Where a model computes otherwise over a prompt that answers share, they will not share it; says so."""
    if policy.share_prompts and policy.dropout:
        log.info("prompts: computed anew for each answer (peft.dropout=%g draws a mask for each)", policy.dropout)
    if not policy.shares_prompts:
        return
    records = [data.train[i] for i in range(min(2, len(data.train)))]
    items = [item for record in records for item in sequences(record)]
    twice = [item for item in items for _ in range(2)]
    with torch.no_grad():
        apart, shared = (policy.outputs(pack(twice, share).to(policy.device)).leaves()[0] for share in (False, True))
    worst = float((apart - shared).abs().max())
    policy.share_prompts = worst <= policy.allowed_difference
    if not policy.share_prompts:
        log.info("prompts: computed anew for each answer (shared, the outputs would differ by %.3g)", worst)


def prepare_reference(
    config: Config,
    trainer: BasicTrainer,
    data: Data,
    text: Text,
    world: World,
    digest: str | None,
    policy: Policy | None,
) -> tuple[Reference | None, str]:
    """The reference of a run, and the digest of its weights.

    ``digest`` is known when a run continues; ``policy`` is given while it still has the reference model's weights,
    which under an adapter it always has.
    """
    cache_dir, origin = Path(config.cache_dir), origin_of(config)
    same = policy if config.model.reference_dtype in (None, config.model.policy_dtype) else None
    loaded: list[Policy] = []

    def load() -> Policy:
        if not loaded:
            with torch.random.fork_rng():
                loaded.append(prepare_policy(config, origin, text, world, trained=False))
                settle_sharing(loaded[0], data)
        return loaded[0]

    def model() -> Policy:
        return load() if same is None else same

    begins = digest is None
    if digest is None:
        digest = world.from_main(_digest(config, origin, text, model(), world) if world.is_main else "")
    if not trainer.needs_reference:
        return None, digest
    if not config.cache_reference_logprobs:
        if same is not None and same.adapter is not None and config.sync_reference_every:
            log.info("reference: live, the policy with weights of its own in the adapter")
            return AdapterReference.of(same), digest
        if same is not None and same.adapter is not None:
            log.info("reference: live, the policy with its adapter off")
            return LiveReference(same), digest
        log.info("reference: live, a second model in memory")
        return LiveReference(load()), digest
    store = ReferenceStore(cache_dir / ".cache" / "reference", digest)
    draw, train = trainer.draw(data), data.train is not data.evaluation
    if (begins or same is not None) and _is_stale(store, data, draw, train, model, world):
        store = ReferenceStore(cache_dir / ".cache" / "reference", digest)
    said = fill(store, data, draw, train, model, world).line()
    log.info("reference: log-probabilities from %s, %s", store.folder, said)
    loaded.clear()
    return CachedReference(store, load if same is None or same.adapter is None else model, said), digest


def _is_stale(
    store: ReferenceStore, data: Data, draw: Draw | None, train: bool, model: Callable[[], Policy], world: World
) -> bool:
    """Whether a sample of what is stored is not what the model gives; then all of it is deleted."""
    worst = allowed = 0.0
    if world.is_main:
        worst, allowed = largest_difference(store, data, draw, train, model()), model().allowed_difference
    worst, allowed = world.from_main((worst, allowed))
    if worst <= allowed:
        return False
    log.warning(
        "reference: %s is stale (a sample differs by %.3g from what the model gives, allowed %g); all is computed anew",
        store.folder,
        worst,
        allowed,
    )
    if world.is_main:
        store.discard()
    world.barrier()
    return True


def _digest(config: Config, origin: Origin | None, text: Text, policy: Policy, world: World) -> str:
    """Of the reference model: by the files that hold all of it where there are such, else by its weights."""
    form = f"{policy.model.dtype} in {policy.autocast} on {world.device.type}, "
    form += f"{config.peft.quantization} {config.peft.double_quant}"
    name, commit = config.model.name_or_path, getattr(policy.model.config, "_commit_hash", None)
    if text.chat.control is not None:  # its tokens' rows are in no file yet
        return weights_digest(policy.model, form)
    if origin is None and name is not None and Path(name).is_dir():
        origin = Origin(Path(name), is_state_dict=False)
    elif origin is None and name is not None and commit is not None:
        return hub_digest(name, commit, form)
    found = None if origin is None else files_digest(origin, form, Path(config.cache_dir))
    return found or weights_digest(policy.model, form)
