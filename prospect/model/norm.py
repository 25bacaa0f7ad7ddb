"""RMS normalization that keeps its input and one number a token: y = x / sqrt(mean(x²) + eps) · w.

Zhang & Sennrich 2019, arXiv 1910.07467, equation 4. With r = 1 / sqrt(mean(x²) + eps), g = dL/dy and H the width:

    dL/dx = r g w − x r³ (g · x w) / H        dL/dw = Σ_tokens r g x

Autograd, given the formula, keeps two more tensors of x's size and reads each several times.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_CLOSE = 1e-5  # to a module of the model that is said to compute this, relative


def rms_norm(x: Tensor, weight: Tensor, eps: float, plus: float = 0.0) -> Tensor:
    """x [..., H] normalized and times weight [H] + ``plus``; computed in float32, or in float64 where x is."""
    if x.is_cuda and not plus and x.dtype == weight.dtype:  # one kernel, which keeps no more
        return F.rms_norm(x, weight.shape, weight, eps)
    apply: Any = _RMSNorm.apply
    out = apply(x, weight, eps, plus)
    assert isinstance(out, Tensor)
    return out


def plus_of(module: nn.Module) -> float | None:
    """What a norm adds to its weight (Llama's 0, Gemma's 1); None for a module that computes something else."""
    weight, eps = getattr(module, "weight", None), eps_of(module)
    if eps is None or not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, Tensor):
        return None
    own: Any = copy.deepcopy(module).float()
    x = torch.linspace(-2, 3, 2 * len(weight), device=weight.device).sin().view(2, -1)
    with torch.no_grad():
        own.weight.copy_(torch.linspace(-1, 2, len(weight)))
        found = own(x)
        near = (
            plus for plus in (0.0, 1.0) if torch.allclose(rms_norm(x, own.weight, eps, plus), found, _CLOSE, _CLOSE)
        )
        return next(near, None)


def eps_of(module: nn.Module) -> float | None:
    """As transformers' models call it."""
    found = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return found if isinstance(found, float) else None


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, plus: float) -> Tensor:
        wide, factor = _wide(x), _wide(weight) + plus
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        ctx.plus = plus
        out: Tensor = (wide * scale).mul_(factor)
        return out.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        given, weight, scale = ctx.saved_tensors
        width = given.shape[-1]
        x, grad, scale = _wide(given).reshape(-1, width), _wide(grad).reshape(-1, width), scale.view(-1, 1)
        factor = _wide(weight) + ctx.plus
        product = grad * x
        by_weight = (scale.T @ product)[0].to(weight.dtype) if ctx.needs_input_grad[1] else None
        along = (product @ factor)[:, None] * scale.pow(3) / -width
        by_x = torch.mul(grad, factor, out=product).mul_(scale).addcmul_(x, along)
        return by_x.view(given.shape).to(given.dtype), by_weight, None, None


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
