"""Compiled blocks: what plain ones compute, under the same names, with as many graphs for one length as for many."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import AutoModelForCausalLM, PreTrainedModel

from dataloaders.packing import pack
from prospect.errors import MachineError, UserError
from prospect.model import compiled
from prospect.model.compiled import compile_blocks, compile_on
from prospect.model.policy import Policy
from tests.model.shapes import build
from tests.model.test_policy import CPU, sequences
from tests.model.test_remade import gradient, with_adapter
from tests.planted import plant

ROUNDING = 1e-5  # of the gradient, relative


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def graphs(model: PreTrainedModel) -> int:
    """Compile, and pass rows of five lengths without gradients and with them."""
    counter = CompileCounterWithBackend("aot_eager")
    compile_blocks(model, counter)
    for count in range(1, 6):
        batch = pack(sequences()[:count])
        with torch.no_grad():
            Policy(model, CPU).logps(batch)
        Policy(model, CPU).logps(batch).tokens.sum().backward()
    return int(counter.frame_count)


def difference(plain: PreTrainedModel, model: PreTrainedModel) -> float:
    """Of the gradients, relative; the losses are equal to 1e-6."""
    (wanted_loss, wanted), (loss, found) = gradient(plain), gradient(model)
    assert loss == pytest.approx(wanted_loss, abs=1e-6)
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("name", "kinds"), [("llama", 2), ("qwen3", 2), ("gpt_neox", 1)])
def test_one_graph_a_kind_of_region_whatever_the_lengths(name: str, kinds: int) -> None:
    model = build(name)
    names = list(model.state_dict())
    assert graphs(model) == 2 * kinds  # without gradients, and with them
    assert list(model.state_dict()) == names
    assert difference(build(name), model) <= ROUNDING


def test_planted_graph_for_each_length_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, compile_blocks, "dynamic=True", "dynamic=False")
    assert graphs(build("llama")) > 4


def test_planted_graph_that_computes_something_else_is_seen() -> None:
    def wrong(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        return lambda *args: tuple(1.001 * x for x in graph(*args))

    model = build("llama")
    compile_blocks(model, wrong)
    assert gradient(model)[0] != pytest.approx(gradient(build("llama"))[0], abs=1e-6)


def test_it_goes_with_recomputation_of_whole_blocks() -> None:
    model = build("llama")
    before = saved(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    compile_blocks(model, "aot_eager_decomp_partition")
    assert saved(model) < 0.75 * before
    assert difference(build("llama"), model) <= ROUNDING


def test_regions_choose_themselves_what_they_keep() -> None:
    model = build("llama")
    before = saved(model)
    compile_blocks(model, "aot_eager_decomp_partition")
    assert saved(model) < 0.85 * before


def saved(model: PreTrainedModel) -> int:
    """Bytes that a pass keeps for its backward pass."""
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        Policy(model, CPU).logps(pack(sequences()))
    own = {p.data_ptr() for p in model.parameters()}
    return sum(tensor.nbytes for at, tensor in kept.items() if at not in own)


def test_it_goes_with_an_adapter_and_its_dropout() -> None:
    model = with_adapter(0.5)
    names = list(model.state_dict())
    compile_blocks(model, "aot_eager")
    assert difference(with_adapter(0.5), model) <= ROUNDING
    assert list(model.state_dict()) == names


def test_what_it_writes_is_a_plain_model(tmp_path: Path) -> None:
    model = build("llama")
    compile_blocks(model, "aot_eager")
    gradient(model)
    model.config._attn_implementation = None
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(x, y) for x, y in zip(again.parameters(), build("llama").parameters(), strict=True))


def test_a_cpu_leaves_it_out_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = build("llama")
    with caplog.at_level(logging.INFO, "prospect"):
        assert not compile_on(CPU, model)
    assert "left out" in caplog.text
    assert all(module._compiled_call_impl is None for module in model.modules())


def test_what_is_lacking_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="needs triton"):
        compile_on(torch.device("cuda"), build("llama"))
    monkeypatch.setattr(compiled, "_is_region", lambda name, child: False)
    with pytest.raises(UserError, match="LlamaForCausalLM has no MLP or norm to be found"):
        compile_blocks(build("llama"))
