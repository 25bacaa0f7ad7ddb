"""Our norm is the models' own, with gradients written by hand; a module that computes otherwise is left to itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from prospect.model import norm
from prospect.model.norm import plus_of, rms_norm
from tests.planted import plant

EPS = 1e-5


def formula(x: Tensor, weight: Tensor, plus: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * (weight + plus)


def differences(dtype: torch.dtype, plus: float) -> list[float]:
    """Of the result and of each gradient to the formula in float64, relative."""
    torch.manual_seed(0)
    x, weight, up = torch.randn(2, 7, 24).double(), torch.randn(24).double(), torch.randn(2, 7, 24).double()
    exact, ours = [[t.to(kind).requires_grad_() for t in (x, weight)] for kind in (torch.float64, dtype)]
    wanted = formula(exact[0], exact[1], plus)
    found = rms_norm(ours[0], ours[1], EPS, plus)
    assert found.dtype == dtype
    pairs = [(found, wanted)]
    pairs += zip(torch.autograd.grad(found, ours, up.to(dtype)), torch.autograd.grad(wanted, exact, up), strict=True)
    return [float((a - b).detach().norm() / b.norm().detach()) for a, b in pairs]


@pytest.mark.parametrize("plus", [0.0, 1.0])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_it_follows_the_formula(dtype: torch.dtype, allowed: float, plus: float) -> None:
    assert max(differences(dtype, plus)) <= allowed


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        (norm._RMSNorm.forward, "_wide(weight) + plus", "_wide(weight)"),
        (norm._RMSNorm.forward, ".add_(eps)", ""),
        (norm._RMSNorm.backward, "scale.pow(3)", "scale.pow(2)"),
        (norm._RMSNorm.backward, "_wide(weight) + ctx.plus", "_wide(weight)"),
        (norm._RMSNorm.backward, "(scale.T @ product)", "product.sum(0, keepdim=True)"),
    ],
)
def test_planted_bugs_are_seen(
    function: Callable[..., object], old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, function, old, new)
    assert max(differences(torch.float32, 1.0)) > 1e-6


def test_a_frozen_weight_and_a_frozen_input_have_no_gradient() -> None:
    x, weight = torch.randn(3, 8), torch.randn(8, requires_grad=True)
    rms_norm(x, weight, EPS).sum().backward()
    assert x.grad is None
    rms_norm(x.requires_grad_(), weight.detach(), EPS).sum().backward()
    assert x.grad is not None


def test_what_a_norm_adds_to_its_weight_is_found_whatever_the_weight() -> None:
    assert plus_of(LlamaRMSNorm(16)) == 0
    assert plus_of(Gemma2RMSNorm(16)) == 1


class OtherRMSNorm(LlamaRMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.001


@pytest.mark.parametrize("module", [OtherRMSNorm(16), nn.LayerNorm(16), nn.Linear(4, 4)])
def test_what_computes_something_else_is_left_alone(module: nn.Module) -> None:
    assert plus_of(module) is None
