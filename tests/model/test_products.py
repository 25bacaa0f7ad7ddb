"""Products by oneDNN are torch's own, wherever they stand in a model; what they are not meant for is left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from prospect.model import products
from prospect.model.policy import Policy
from prospect.model.products import LINEAR, Linear, add_product, product, use_products
from prospect.model.remade import remake_activations
from tests.model.shapes import SHAPES, build
from tests.model.test_policy import CPU, plain, run, small_tiles
from tests.model.test_remade import gradient, with_adapter
from tests.planted import plant

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
tiles = small_tiles


@pytest.fixture(autouse=True)
def every_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones too, on any processor."""
    monkeypatch.setattr(products, "LEAST", 0)
    monkeypatch.setattr(products, "available", lambda: True)


class Calls(TorchDispatchMode):
    """Counts the products that oneDNN is given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.name() == LINEAR
        return func(*args, **(kwargs or {}))


def assert_near(found: Tensor | None, wanted: Tensor | None) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5, check_dtype=False)


def using(model: PreTrainedModel) -> PreTrainedModel:
    use_products(model)
    return model


LAYOUTS = pytest.mark.parametrize("left", [torch.clone, lambda x: x.T.contiguous().T], ids=["rows", "columns"])


@LAYOUTS
@pytest.mark.parametrize("right", [torch.clone, lambda x: x.T.contiguous().T], ids=["rows", "columns"])
def test_a_product_whatever_the_strides(left, right) -> None:
    a, b = torch.randn(7, 33), torch.randn(33, 12)
    with Calls() as calls:
        found = product(left(a), right(b))
    assert calls.count == 1
    assert_near(found, a.double() @ b.double())


@LAYOUTS
def test_a_sum_in_parts(left, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_AT_ONCE", 3)
    into, a, b = torch.randn(7, 12), torch.randn(7, 33), torch.randn(33, 12)
    wanted, place = into + a @ b, into.data_ptr()
    with Calls() as calls:
        add_product(into, left(a), b)
    assert calls.count == 3
    assert into.data_ptr() == place
    assert_near(into, wanted)


def differences(name: str) -> tuple[float, float]:
    """Of loss, and of the gradient relative to its size, to the model as transformers computes it."""
    ours, theirs = using(build(name)), build(name, "eager")
    with Calls() as calls:
        loss, found = run(ours, lambda batch: Policy(ours, CPU).logps(batch).tokens)
    assert calls.count >= 3 * 7  # tiles of the head, and the layers
    wanted_loss, wanted = run(theirs, lambda batch: plain(theirs, batch))
    return abs(loss - wanted_loss), float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", SHAPES)
def test_models_compute_the_same_under_the_same_names(name: str) -> None:
    loss, grad = differences(name)
    assert loss <= 1e-6
    assert grad <= 1e-5
    assert list(using(build(name)).state_dict()) == list(build(name).state_dict())


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        (products._Linear.backward, "product(grad.T, rows)", "product(grad.T, rows * 1.001)"),
        (products._Linear.backward, "product(grad, weight)", "product(grad, weight * 1.001)"),
        (products._Place.take, ".copy_(rows)", ""),
        (products.add_product, "_onednn(rows, right.T)", "_onednn(rows, right.T) * 1.001"),
    ],
)
def test_planted_bugs_are_seen(function, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, function, old, new)
    assert not differences("llama")[1] <= 1e-5


def test_a_bias_has_its_gradient() -> None:
    own, layer = Linear(6, 4), nn.Linear(6, 4)
    own.load_state_dict(layer.state_dict())
    x, up = torch.randn(2, 5, 6), torch.randn(2, 5, 4)
    with Calls() as calls:
        own(x).backward(up)
    assert calls.count == 2  # nobody asks for the gradient of x
    layer(x).backward(up)
    for found, wanted in zip(own.parameters(), layer.parameters(), strict=True):
        assert_near(found.grad, wanted.grad)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_under_an_adapter(dropout: float) -> None:
    wanted_loss, wanted = gradient(with_adapter(dropout))
    loss, found = gradient(using(with_adapter(dropout)))
    assert loss == pytest.approx(wanted_loss, abs=1e-5)
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


def kept(layer: nn.Module, x: Tensor) -> list[tuple[int, ...]]:
    """Shapes of what the backward pass will need."""
    shapes: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(tuple(t.shape)), lambda t: t):
        layer(x)
    return shapes


def test_a_frozen_layer_keeps_no_inputs() -> None:
    layer = Linear(6, 4).requires_grad_(False)
    assert kept(layer, torch.randn(5, 6, requires_grad=True)) == [(4, 6)]


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_activations_made_again_make_no_product_twice(name: str) -> None:
    counts, found = [], []
    for again in (False, True):
        model = using(build(name))
        if again:
            remake_activations(model)
        with Calls() as calls:
            found.append(gradient(model)[1])
        counts.append(calls.count)
    assert counts[0] == counts[1]
    assert_near(*found)


def test_what_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Linear(6, 4)
    with Calls() as calls:
        layer.double()(torch.randn(5, 6, dtype=torch.float64))
        product(torch.randn(5, 6).bfloat16(), torch.randn(6, 4).bfloat16())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer.float()(torch.randn(5, 6)).dtype == torch.bfloat16
        monkeypatch.setattr(products, "LEAST", 5 * 6 * 4 + 1)
        layer(torch.randn(5, 6))
    assert calls.count == 0


@pytest.mark.parametrize(
    ("vectors", "intel", "used"), [("AVX512", False, True), ("AVX512", True, False), ("AVX2", False, False)]
)
def test_the_processor_decides(vectors: str, intel: bool, used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    monkeypatch.setattr(products, "_made_by_intel", lambda: intel)
    assert any(isinstance(module, Linear) for module in using(build("llama")).modules()) == used
