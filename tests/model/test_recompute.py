"""Recomputing MLPs: the same numbers to the last bit, fewer bytes, hardly more work."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from dataloaders.packing import pack
from prospect.errors import UserError
from prospect.model import recompute
from prospect.model.policy import Policy
from prospect.model.recompute import recompute_mlps
from tests.memory import LiveBytes
from tests.model.shapes import SHAPES, build
from tests.model.test_policy import CPU, run, sequences
from tests.planted import plant


def gradient(model: PreTrainedModel) -> tuple[float, torch.Tensor]:
    torch.manual_seed(5)  # of dropout
    return run(model, lambda batch: Policy(model, CPU).logps(batch).tokens)


def with_adapter(dropout: float) -> PreTrainedModel:
    """LoRA with dropout on every linear layer."""
    model = build("llama")
    torch.manual_seed(4)
    config = LoraConfig(target_modules="all-linear", lora_dropout=dropout, init_lora_weights=False)
    get_peft_model(model, config)
    return model.train()


@pytest.mark.parametrize("name", SHAPES)
def test_it_changes_nothing_to_the_last_bit(name: str) -> None:
    loss, wanted = gradient(build(name))
    model = build(name)
    names = list(model.state_dict())
    recompute_mlps(model)
    assert list(model.state_dict()) == names
    again, found = gradient(model)
    assert again == loss
    assert torch.equal(found, wanted)


def test_dropout_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, wanted = gradient(with_adapter(0.5))
    model = with_adapter(0.5)
    recompute_mlps(model)
    assert torch.equal(gradient(model)[1], wanted)
    plant(monkeypatch, recompute._recomputed, "use_reentrant=False", "use_reentrant=False, preserve_rng_state=False")
    assert not torch.equal(gradient(model)[1], wanted)


def test_planted_recomputation_of_products_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, recompute._policy, "if widens or", "if False and")
    assert flops("mlp") > flops("none")


def flops(which: str) -> int:
    model = prepared(which)
    with FlopCounterMode(display=False) as counter:
        gradient(model)
    return int(counter.get_total_flops())


def prepared(which: str) -> PreTrainedModel:
    model = build("llama")
    if which == "mlp":
        recompute_mlps(model)
    elif which == "full":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def peak(which: str) -> int:
    model, batch = prepared(which), pack(sequences())
    model.zero_grad()
    with LiveBytes(model.parameters()) as live:
        tokens = Policy(model, CPU).logps(batch).tokens
        held = live.now
        tokens.sum().backward()
    return held


def test_it_needs_fewer_bytes_and_no_more_products() -> None:
    assert peak("full") < peak("mlp") < peak("none")
    batch, model = pack(sequences()), build("llama")
    tokens, width = int(batch.bounds[-1]), model.config.intermediate_size
    saved = peak("none") - peak("mlp")
    assert saved == pytest.approx(2 * tokens * width * 4 * model.config.num_hidden_layers, rel=0.05)
    assert flops("mlp") == flops("none") < flops("full")


def test_blocks_without_an_mlp_are_refused() -> None:
    model = build("llama")
    layer = model.get_submodule("model.layers.1")
    layer.other = layer.mlp
    del layer.mlp
    with pytest.raises(UserError, match="mlp, but 1 of the 2 blocks of LlamaForCausalLM have none to be found"):
        recompute_mlps(model)
