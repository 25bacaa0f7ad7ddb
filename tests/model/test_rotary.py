"""Rotary positions of our own: the numbers of the models' functions, and only where they compute that."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.models.cohere.modeling_cohere import apply_rotary_pos_emb as of_cohere
from transformers.models.glm.modeling_glm import apply_rotary_pos_emb as of_glm
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as of_llama
from transformers.models.olmo.modeling_olmo import apply_rotary_pos_emb as of_olmo
from transformers.models.phi3.modeling_phi3 import apply_rotary_pos_emb as of_phi3

from prospect.model import rotary
from prospect.model.policy import Policy
from prospect.model.rotary import _is_this, _Turn, turned, use_rotary
from tests.model.shapes import SHAPES, build
from tests.model.test_policy import CPU, run
from tests.planted import plant

Apply = Callable[..., tuple[torch.Tensor, torch.Tensor]]
TURNED_BY_OURS = {"llama", "gpt_neox", "gemma2", "mistral", "qwen3", "granite", "phi"}  # cohere's pairs are neighbours


def results(apply: Apply, width: int = 8, dtype: torch.dtype = torch.float64, dim: int = 1) -> list[torch.Tensor]:
    """Query and key at some positions, and the derivatives by what they were; ``width`` of 8 numbers are turned."""
    torch.manual_seed(0)
    heads = [torch.randn(1, 5, n, 8, dtype=dtype).transpose(1, 3 - dim).requires_grad_() for n in (4, 2)]
    angle = torch.randn(1, 5, width // 2, dtype=dtype if dtype == torch.float64 else torch.float32).repeat(1, 1, 2)
    out = apply(*heads, angle.cos(), angle.sin(), unsqueeze_dim=dim)
    return [
        *(x.detach() for x in out),
        *torch.autograd.grad(out, heads, [torch.randn(x.shape, dtype=x.dtype) for x in out]),
    ]


def worst(theirs: Apply, width: int = 8, dtype: torch.dtype = torch.float64, dim: int = 1) -> float:
    pairs = zip(results(turned, width, dtype, dim), results(theirs, width, dtype, dim), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def test_the_same_as_the_library() -> None:
    assert worst(of_llama) <= 1e-14
    assert worst(of_llama, dim=2) <= 1e-14
    assert worst(of_llama, dtype=torch.float32) <= 1e-6
    assert worst(of_llama, dtype=torch.bfloat16) <= 0.05  # its derivative's parts are rounded before they are added
    assert worst(of_phi3, width=4) <= 1e-14


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        (_Turn.backward, "-1)", "1)"),
        (rotary._turn, "value=-way", "value=way"),
        (rotary._turn, "addcmul_(first, sin", "addcmul_(second, sin"),
        (rotary._turn, "same.copy_(rest)", "same.zero_()"),
    ],
)
def test_planted_bugs_are_seen(function, old, new, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, function, old, new)
    assert worst(of_phi3, width=4) > 1e-3


@pytest.mark.parametrize(
    ("theirs", "same"),
    [(of_llama, True), (of_phi3, True), (of_cohere, False), (of_glm, False), (of_olmo, False)],
    ids=["llama", "phi3: a part of each head", "cohere: neighbours", "glm: neighbours", "olmo: another dtype"],
)
def test_functions_that_compute_something_else_are_told_apart(theirs: Apply, same: bool) -> None:
    assert _is_this(theirs) == same


def of_model(name: str, ours: bool) -> tuple[float, torch.Tensor]:
    model = build(name)
    if ours:
        use_rotary(model)
        model = copy.deepcopy(model)
    return run(model, lambda batch: Policy(model, CPU).logps(batch).tokens)


def differences(name: str) -> tuple[float, float]:
    (wanted_loss, wanted), (loss, found) = of_model(name, False), of_model(name, True)
    return abs(loss - wanted_loss), float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", SHAPES)
def test_models_compute_the_same(name: str) -> None:
    loss, gradient = differences(name)
    assert loss <= 1e-6
    assert gradient <= 1e-5


@pytest.mark.parametrize("name", SHAPES)
def test_models_take_it_by_themselves_and_nobody_else_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of_model(name, True)  # which tries the model's function, and remembers what it is
    calls: list[int] = []
    original = rotary._turn

    def counted(x: torch.Tensor, *args: Any) -> torch.Tensor:
        calls.append(1)
        return original(x, *args)

    monkeypatch.setattr(rotary, "_turn", counted)
    of_model(name, False)
    library = sys.modules[type(build(name)).__module__]
    assert not calls
    assert library.apply_rotary_pos_emb is not turned
    of_model(name, True)
    assert bool(calls) == (name in TURNED_BY_OURS)


def test_planted_turn_of_a_model_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    _is_this(of_llama)  # before what it would notice
    plant(monkeypatch, rotary._turn, "value=-way", "value=way")
    assert differences("llama")[1] > 1e-3
