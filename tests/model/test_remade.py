"""Activations made again: the numbers of the plain model, a third to a half of the bytes, no product more."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from dataloaders.packing import pack
from prospect.model import head, remade
from prospect.model.policy import Policy
from prospect.model.remade import Recipes, remake_activations
from tests.memory import LiveBytes
from tests.model.shapes import SHAPES, build
from tests.model.test_policy import CPU, run, sequences
from tests.planted import plant

MORE = {  # layers called otherwise, experts, norms after the layers
    "phi3": {"model_type": "phi3", "num_key_value_heads": 2},
    "olmo2": {"model_type": "olmo2", "num_key_value_heads": 2},
    "mixtral": {"model_type": "mixtral", "num_key_value_heads": 2, "num_local_experts": 4},
}


@pytest.fixture(autouse=True)
def more_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, shape in MORE.items():
        monkeypatch.setitem(SHAPES, name, shape)


def remaking(model: PreTrainedModel) -> PreTrainedModel:
    remake_activations(model)
    return model


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


def differences(plain: PreTrainedModel, model: PreTrainedModel) -> tuple[float, float]:
    """Of loss, and of the gradient relative to its size."""
    (wanted_loss, wanted), (loss, found) = gradient(plain), gradient(model)
    return abs(loss - wanted_loss), float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", [*SHAPES, *MORE])
def test_models_compute_the_same_under_the_same_names(name: str) -> None:
    plain, model = build(name), remaking(build(name))
    assert list(model.state_dict()) == list(plain.state_dict())
    loss, grad = differences(plain, model)
    assert loss <= 1e-6
    assert grad <= 1e-5


def test_in_float64_too() -> None:
    plain, model = (build("gpt_neox", dtype=torch.float64) for _ in range(2))  # no norm in it goes down to float32
    assert max(differences(plain, remaking(model))) <= 1e-12


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_under_an_adapter_put_on_before_or_after(dropout: float) -> None:
    for model in (remaking(with_adapter(dropout)), adapted_later(dropout)):
        loss, grad = differences(with_adapter(dropout), model)
        assert loss <= 1e-5
        assert grad <= 1e-5


def adapted_later(dropout: float) -> PreTrainedModel:
    model = remaking(build("llama"))
    torch.manual_seed(4)
    get_peft_model(model, LoraConfig(target_modules="all-linear", lora_dropout=dropout, init_lora_weights=False))
    return model.train()


@pytest.mark.parametrize(
    ("old", "new", "function"),
    [
        ("torch.mul, active, up", "torch.mul, up, up", remade._gated),
        ("forward, x)", "torch.sigmoid, x)", remade._activation),
        ("rms_norm(x, weight, eps, plus), x, weight)", "rms_norm(x, weight, 1, plus), x, weight)", remade._norm),
        ("made._version != noted.version", "False", remade._same),
        ("wanted.numel() == made.numel()", "True", remade._same),
        ("self.known[at].tensor is gone", "False", Recipes._forget),
    ],
    ids=["product", "activation", "norm", "changed", "part", "gone"],
)
def test_planted_bugs_are_seen(old, new, function, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, function, old, new)
    assert not holds()


def holds() -> bool:
    """Two models of different build, and the cases that autograd itself would meet."""
    near = all(differences(build(name), remaking(build(name)))[1] <= 1e-5 for name in ("llama", "gpt_neox"))
    try:
        return near and tensors_at_one_address()
    except RuntimeError:  # a tensor of another shape
        return False


def tensors_at_one_address() -> bool:
    """What is kept of a noted tensor that was changed, of a part of one, and of another where one lay."""
    recipes, x = Recipes(), torch.randn(4, 6, requires_grad=True)
    with recipes.hooks():
        changed = recipes.note(x * 2, lambda x: x * 2, x)
        changed.add_(1)
        whole = recipes.note(x * 3, lambda x: x * 3, x)
        results = [changed * changed, whole[:2] * whole[:2]]
        del whole
    kept = len(recipes.known) == 1
    torch.stack([result.sum() for result in results]).sum().backward()
    wanted = 2 * (2 * x + 1) * 2
    wanted[:2] += 18 * x[:2]
    return kept and x.grad is not None and torch.allclose(x.grad, wanted)


def test_what_was_changed_since_it_was_kept_is_refused() -> None:
    recipes, x = Recipes(), torch.randn(4, 6, requires_grad=True)
    with recipes.hooks():
        between = x * 2
        out = recipes.note(between.sin(), torch.sin, between).square()
    with torch.no_grad():
        between.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        out.sum().backward()


def test_a_graph_may_be_gone_through_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head._KEPT, "cpu", 0)  # what is kept for the first time is rounded otherwise
    model = remaking(build("llama"))
    loss = Policy(model, CPU).logps(pack(sequences())).tokens.sum()
    first = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(model.parameters()))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_a_copy_keeps_recipes_of_its_own() -> None:
    model = remaking(build("llama"))
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert gradient(other)[0] == gradient(remaking(build("llama")))[0]


def prepared(which: str, name: str = "llama") -> PreTrainedModel:
    model = build(name)
    if which == "remade":
        remake_activations(model)
    elif which == "checkpointed":
        remake_activations(model)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def held(which: str, name: str = "llama") -> int:
    """Bytes between forward and backward pass."""
    model, batch = prepared(which, name), pack(sequences())
    with LiveBytes(model.parameters()) as live:
        tokens = Policy(model, CPU).logps(batch).tokens
        found = live.now
        tokens.sum().backward()
    return found


def test_it_holds_fewer_bytes_by_what_no_product_has_made() -> None:
    model, tokens = build("llama"), int(pack(sequences()).bounds[-1])
    shape, layers = model.config, model.config.num_hidden_layers
    numbers = layers * 2 * shape.intermediate_size + (2 * layers + 1) * shape.hidden_size  # of MLPs, and of x / |x|
    numbers += 2 * layers * shape.hidden_size  # what norms give to linear layers; the last one's goes into the head
    assert held("plain") - held("remade") == pytest.approx(4 * tokens * numbers, rel=0.05)
    assert held("checkpointed") < held("remade")


def test_an_mlp_without_a_gate_keeps_what_its_products_make() -> None:
    model, tokens = build("gpt_neox"), int(pack(sequences()).bounds[-1])
    numbers = model.config.num_hidden_layers * model.config.intermediate_size
    assert held("plain", "gpt_neox") - held("remade", "gpt_neox") == pytest.approx(4 * tokens * numbers, rel=0.05)


def test_no_product_is_made_twice() -> None:
    """But two sums of a norm over tokens and width, which are products to the counter."""
    assert flops("remade") == pytest.approx(flops("plain"), rel=0.005)
    assert flops("checkpointed") > 1.1 * flops("plain")


def flops(which: str) -> int:
    model = prepared(which)
    with FlopCounterMode(display=False) as counter:
        gradient(model)
    return counter.get_total_flops()


def test_each_is_made_once_however_many_layers_ask_for_it() -> None:
    calls: list[Tensor] = []

    def twice(x: Tensor) -> Tensor:
        calls.append(x)
        return x * 2

    recipes, x = Recipes(), torch.randn(4, 6, requires_grad=True)
    with recipes.hooks():
        y = recipes.note(x * 2, twice, x)
        out = torch.cat([y @ torch.randn(6, 3, requires_grad=True) for _ in range(3)])
    out.sum().backward()
    assert len(calls) == 1


def test_nothing_is_noted_without_gradients() -> None:
    recipes, x = Recipes(), torch.randn(4, 6, requires_grad=True)
    with torch.no_grad():
        kept = recipes.note(x * 2, torch.mul, x, x)
    assert not recipes.known
    assert kept.shape == (4, 6)


def test_an_mlp_that_computes_something_else_is_left_alone() -> None:
    model = build("llama")
    first, second = (model.get_submodule(f"model.layers.{i}.mlp") for i in range(2))
    plain = type(first).forward
    first.forward = doubled = lambda x: 2 * plain(first, x)
    remake_activations(model)
    assert first.forward is doubled
    assert "forward" in vars(second)
