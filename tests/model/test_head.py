"""The tiled head against full logits: value, gradients, precision, refusals."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.flop_counter import FlopCounterMode

from prospect.config.schema import HeadKernel
from prospect.errors import UserError
from prospect.model import between, head
from prospect.model.between import Between
from prospect.model.head import Head
from tests.planted import plant

N, HIDDEN, VOCAB = 37, 12, 29
Inputs = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(N, HIDDEN, dtype=torch.float64, requires_grad=True), torch.randint(0, VOCAB, (N,))


def full(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = head.linear(hidden) * head.scale
    if head.softcap is not None:
        logits = (logits / head.softcap).tanh() * head.softcap
    return logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)


FEATURES = pytest.mark.parametrize(
    ("bias", "scale", "softcap"), [(False, 1.0, None), (True, 0.25, None), (True, 2.0, 3.0)]
)


@pytest.fixture(autouse=True)
def tiles_of_8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which two are kept for the backward pass, and the others made again."""
    monkeypatch.setitem(head._TILE, "cpu", (8, 2**20))
    monkeypatch.setitem(head._KEPT, "cpu", 2 * 8 * VOCAB * 8)


@pytest.mark.parametrize("tile", [1, 8, N, 256])
@FEATURES
def test_values_and_gradients(inputs, tile, bias, scale, softcap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head._TILE, "cpu", (tile, 2**20))
    hidden, targets = inputs
    made = Head(nn.Linear(HIDDEN, VOCAB, bias=bias, dtype=torch.float64), scale, softcap)
    weights = torch.linspace(-1, 2, N, dtype=torch.float64)
    leaves = [hidden, *made.linear.parameters()]
    ours = made.logps(hidden, targets)
    theirs = full(made, hidden, targets)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for got, wanted in zip(
        torch.autograd.grad((ours * weights).sum(), leaves),
        torch.autograd.grad((theirs * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def gradients(head: Head, inputs: Inputs, ours: bool, known: float | None = None, calls: int = 2) -> list[torch.Tensor]:
    """Of hidden states, weight and bias where they are trained, added up over some backward passes."""
    hidden = inputs[0].detach().clone().requires_grad_()
    leaves = [hidden, *(p for p in head.linear.parameters() if p.requires_grad)]
    for leaf in leaves:
        leaf.grad = None
    weights = torch.linspace(-1, 2, N, dtype=torch.float64) if known is None else known
    for _ in range(calls):
        logps = head.logps(hidden, inputs[1], known) if ours else full(head, hidden, inputs[1])
        (logps * weights).sum().backward()
    found = [leaf.grad for leaf in leaves]
    return [grad for grad in found if grad is not None]


def worst(head: Head, inputs: Inputs, known: float | None = None) -> float:
    """The largest difference of any gradient from the plain path's, over its size."""
    ours, theirs = gradients(head, inputs, True, known), gradients(head, inputs, False, known)
    return max(float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True))


@FEATURES
@pytest.mark.parametrize("way", ["in place", "frozen", "known", "known and frozen", "known, with a hook"])
def test_shorter_ways_give_the_same_gradients(inputs: Inputs, way: str, bias, scale, softcap) -> None:
    made = Head(nn.Linear(HIDDEN, VOCAB, bias=bias, dtype=torch.float64), scale, softcap, accumulates=True)
    if "frozen" in way:
        made.linear.requires_grad_(False)
    if "hook" in way:
        made.linear.weight.register_post_accumulate_grad_hook(lambda p: None)
    assert worst(made, inputs, -1 / N if "known" in way else None) <= 1e-12


@pytest.mark.parametrize(
    ("function", "old", "new", "known", "frozen"),
    [
        (head._Gradients.found, "None if self.in_place else self.weight", "self.weight", None, False),
        (head._EarlyLogps.forward, "else known", "else abs(known)", -1 / N, False),
        (head._EarlyLogps.backward, "* grads[0][:, None]", "* grads[0].mean()", None, True),
        (Between.logps_and_slopes, "Shares(logits, total)", "Shares(logits)", -1 / N, False),
        (Between.logps_and_shares, "Shares(logits, total)", "Shares(logits)", None, False),
        (Between.slopes_of, "given[:, None]", "given.flip(0)[:, None]", None, False),
        (Between.slopes, "given[:, None]", "given.flip(0)[:, None]", None, False),
        (head._TokenLogps.backward, "kept.pop(at, None)", "kept.pop(1 - at, None)", None, False),
    ],
)
def test_planted_bugs_are_seen(inputs: Inputs, function, old, new, known, frozen, monkeypatch) -> None:
    made = Head(nn.Linear(HIDDEN, VOCAB, dtype=torch.float64), accumulates=True)
    made.linear.requires_grad_(not frozen)
    assert worst(made, inputs, known) <= 1e-12
    plant(monkeypatch, function, old, new)
    assert worst(made, inputs, known) > 1e-3


def products(head: Head, inputs: Inputs, known: float | None = None) -> float:
    """Matrix products of the size of the logits in one forward and backward pass."""
    with FlopCounterMode(display=False) as counter:
        gradients(head, inputs, True, known, calls=1)
    return counter.get_total_flops() / (2 * N * HIDDEN * VOCAB)


def test_fewer_products_where_more_is_known(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Head(nn.Linear(HIDDEN, VOCAB, dtype=torch.float64), accumulates=True)
    assert products(made, inputs) == pytest.approx(4 - 16 / N)  # of two tiles the logits were kept
    monkeypatch.setitem(head._KEPT, "cpu", 2**20)
    assert products(made, inputs) == 3
    monkeypatch.setitem(head._KEPT, "cpu", 0)
    assert products(made, inputs) == 4
    assert products(made, inputs, known=-1 / N) == 3
    made.linear.requires_grad_(False)
    assert products(made, inputs) == products(made, inputs, known=-1 / N) == 2


def test_a_second_backward_pass_makes_again_what_the_first_has_consumed(inputs: Inputs) -> None:
    made = Head(nn.Linear(HIDDEN, VOCAB, dtype=torch.float64))
    loss = (made.logps(*inputs) * torch.linspace(-1, 2, N)).sum()
    first, second = (torch.autograd.grad(loss, [inputs[0], made.linear.weight], retain_graph=True) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_tiles_wait_only_for_a_backward_pass_that_can_use_them(inputs: Inputs) -> None:
    linear = nn.Linear(HIDDEN, VOCAB, dtype=torch.float64)
    assert Head(linear)._room(inputs[0].device) > 0
    assert Head(linear, softcap=3.0)._room(inputs[0].device) == 0
    assert Head(linear, kernel=HeadKernel.compiled)._room(inputs[0].device) == 0
    with torch.no_grad():
        assert Head(linear)._room(inputs[0].device) == 0


def test_the_weight_has_one_gradient_and_no_second_buffer(inputs: Inputs) -> None:
    made = Head(nn.Linear(HIDDEN, VOCAB, dtype=torch.float64), accumulates=True)
    gradients(made, inputs, True)
    own = made.linear.weight.grad
    assert made.sink(made.linear.weight) is own
    with torch.no_grad():
        made.logps(*inputs, known=-1.0)  # nobody will go backward
    assert made.linear.weight.grad is own
    made.linear.weight.register_post_accumulate_grad_hook(lambda p: None)
    assert made.sink(made.linear.weight) is not own  # the hook waits for the gradient to be brought


def test_a_loss_that_is_not_what_was_known_is_refused(inputs: Inputs) -> None:
    made = Head(nn.Linear(HIDDEN, VOCAB, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="not linear"):
        made.logps(*inputs, known=-1.0).exp().sum().backward()


def test_a_tile_has_a_bound_on_its_bytes() -> None:
    for device, (most, size) in {"cpu": (8, 2**20), "cuda": (4096, 512 * 2**20)}.items():
        for vocabulary in (100, 8192, 32_000, 128_256, 262_144):
            rows = head.tile_size(vocabulary, torch.device(device))
            assert 1 <= rows <= most
            assert rows * vocabulary * 4 <= size or rows == 1


def squares_are_right(made: Head, hidden: torch.Tensor) -> bool:
    every = torch.arange(VOCAB)
    wanted = torch.stack([full(made, row.expand(VOCAB, -1), every).exp().square().sum().log() for row in hidden])
    found = made.log_squares(hidden)
    return not found.requires_grad and torch.allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tile", [8, 256])
@pytest.mark.parametrize(("bias", "scale", "softcap"), [(False, 1.0, None), (True, 2.0, 3.0)])
def test_second_moments(inputs, tile, bias, scale, softcap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head._TILE, "cpu", (tile, 2**20))
    made = Head(nn.Linear(HIDDEN, VOCAB, bias=bias, dtype=torch.float64), scale, softcap)
    assert squares_are_right(made, inputs[0])
    plant(monkeypatch, Head.log_squares, "logits.mul_(2).logsumexp(-1)", "2 * normalizers")
    assert not squares_are_right(made, inputs[0])


@pytest.fixture
def eager_graphs(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Compiled into graphs and no machine code; the counts of what was compiled."""
    torch._dynamo.reset()
    counters.clear()
    between._compiled.cache_clear()
    monkeypatch.setattr(between, "BACKEND", "aot_eager")
    return counters["stats"]


@FEATURES
@pytest.mark.parametrize("way", ["in place", "frozen", "known"])
def test_compiled_tiles_give_the_same_gradients(eager_graphs, inputs, way, bias, scale, softcap) -> None:
    linear = nn.Linear(HIDDEN, VOCAB, bias=bias, dtype=torch.float64)
    made = Head(linear, scale, softcap, accumulates=True, kernel=HeadKernel.compiled)
    linear.requires_grad_(way != "frozen")
    assert worst(made, inputs, -1 / N if way == "known" else None) <= 1e-12
    torch.testing.assert_close(made.logps(*inputs), full(made, *inputs), rtol=0, atol=1e-12)


def test_one_graph_a_function_whatever_the_number_of_positions(eager_graphs, inputs) -> None:
    passes_of_many_lengths(inputs)
    assert eager_graphs["unique_graphs"] == 3


def test_planted_graph_for_each_number_is_seen(eager_graphs, inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, between._compiled, "dynamic=True", "dynamic=False")
    passes_of_many_lengths(inputs)
    assert eager_graphs["unique_graphs"] > 3


def passes_of_many_lengths(inputs: Inputs) -> None:
    made = Head(nn.Linear(HIDDEN, VOCAB, dtype=torch.float64), kernel=HeadKernel.compiled)
    for count in (N, N - 3, 19, 8):  # the last tile is of another size each time
        few = (inputs[0][:count].detach().clone().requires_grad_(), inputs[1][:count].clone())
        made.logps(*few).sum().backward()
        made.logps(*few, known=1.0).sum().backward()


def test_planted_bug_in_compiled_tiles_is_seen(eager_graphs, inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, Between.slopes, "normalizers[:, None]", "normalizers.roll(1)[:, None]")
    made = Head(nn.Linear(HIDDEN, VOCAB, dtype=torch.float64), kernel=HeadKernel.compiled)
    assert worst(made, inputs) > 1e-3


Given = list[dict[str, Any]]


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Given:
    """In the place of cut-cross-entropy what it is documented to compute; and what it was given."""
    given: Given = []

    def losses(e: torch.Tensor, c: torch.Tensor, targets: torch.Tensor, softcap: float | None, **options: Any) -> Any:
        given.append({"dtype": e.dtype, "weight": c.dtype, **options})
        logits = e.float() @ c.float().T
        logits = logits if softcap is None else (logits / softcap).tanh() * softcap
        return nn.functional.cross_entropy(logits, targets, reduction="none")

    module = ModuleType("cut_cross_entropy")
    module.linear_cross_entropy = losses  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", module)
    return given


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_kernels_that_hold_no_logits_are_asked_for_all_of_each_derivative(cut: Given, inputs, softcap) -> None:
    linear = nn.Linear(HIDDEN, VOCAB, bias=False)
    made = Head(linear, 1.0, softcap, accumulates=True, kernel=HeadKernel.cut)
    single = (inputs[0].detach().float(), inputs[1])
    assert worst(made, single) <= 1e-5
    assert worst(made, single, known=-1 / N) <= 1e-5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made.logps(*single).dtype == torch.float32
    assert cut[-1] == {"dtype": torch.bfloat16, "weight": torch.bfloat16, "reduction": "none", "filter_eps": None}


def test_planted_sign_of_its_losses_is_seen(cut: Given, inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, head._cut_logps, "return -losses", "return losses")
    made = Head(nn.Linear(HIDDEN, VOCAB, bias=False), kernel=HeadKernel.cut)
    assert worst(made, (inputs[0].detach().float(), inputs[1])) > 1


def test_numeric_derivative(inputs) -> None:
    hidden, targets = inputs
    made = Head(nn.Linear(HIDDEN, VOCAB, dtype=torch.float64), 0.5, 2.0)
    few = hidden[:3].detach().requires_grad_()
    torch.autograd.gradcheck(lambda h, w, b: made.logps(h, targets[:3]), (few, made.linear.weight, made.linear.bias))


def test_bfloat16_weights_still_give_a_float32_log_softmax(inputs) -> None:
    hidden, targets = inputs
    made = Head(nn.Linear(HIDDEN, VOCAB, bias=False, dtype=torch.bfloat16))
    logps = made.logps(hidden.bfloat16(), targets)
    exact = Head(made.linear.double()).logps(hidden.bfloat16().double(), targets)
    assert logps.dtype == torch.float32
    assert (logps - exact).abs().max() < 0.02  # logits rounded to bf16, nothing more


def test_no_positions() -> None:
    made = Head(nn.Linear(HIDDEN, VOCAB))
    logps = made.logps(torch.zeros(0, HIDDEN, requires_grad=True), torch.zeros(0, dtype=torch.int64))
    logps.sum().backward()
    assert len(logps) == 0


def test_an_output_layer_that_is_not_linear_is_refused() -> None:
    class Odd(nn.Module):
        def get_output_embeddings(self) -> nn.Module:
            return nn.Identity()

    with pytest.raises(UserError, match="Odd has no linear output layer"):
        Head.of(Odd())  # type: ignore[arg-type]
