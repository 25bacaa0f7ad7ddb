"""Rotary positions turned in four operations a direction instead of thirteen.

Su et al. 2021, arXiv 2104.09864, with the halves of a head (x₁, x₂) as a pair, as Llama has it:

    y₁ = x₁ cos − x₂ sin        y₂ = x₂ cos + x₁ sin

The derivative is the turn by the opposite angle. transformers computes x cos + (−x₂, x₁) sin, each product, negation
and concatenation a pass over memory, and their derivatives more of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_NAME = "apply_rotary_pos_emb"  # as the modules of transformers' models call theirs
_CLOSE = 1e-5


def use_rotary(model: nn.Module) -> None:
    """Let attention layers whose model turns halves by its own function turn them by ours."""
    for module in model.modules():
        forward = inspect.unwrap(type(module).forward)
        theirs = getattr(forward, "__globals__", {}).get(_NAME)
        if theirs is None or _NAME not in forward.__code__.co_names or not _is_this(theirs):
            continue
        assert isinstance(forward, FunctionType)
        names = {**forward.__globals__, _NAME: turned}
        own = FunctionType(forward.__code__, names, None, forward.__defaults__, forward.__closure__)
        own.__kwdefaults__ = forward.__kwdefaults__
        module.forward = MethodType(own, module)


def turned(
    query: Tensor,  # [B, heads, T, d], or with T before the heads
    key: Tensor,
    cos: Tensor,  # [B, T, r], of which the second half repeats the first; what of a head is beyond r stays as it is
    sin: Tensor,
    unsqueeze_dim: int = 1,
) -> tuple[Tensor, Tensor]:
    """Query and key at their positions."""
    half = cos.shape[-1] // 2
    angle = cos[..., :half].unsqueeze(unsqueeze_dim), sin[..., :half].unsqueeze(unsqueeze_dim)
    apply: Any = _Turn.apply
    return apply(query, *angle), apply(key, *angle)


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, sin, -1), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, way: int) -> Tensor:
    out = torch.empty_like(x, dtype=torch.promote_types(x.dtype, cos.dtype))
    half = cos.shape[-1]
    sizes = (half, half, x.shape[-1] - 2 * half)
    (first, second, rest), (one, two, same) = x.split(sizes, -1), out.split(sizes, -1)
    torch.mul(first, cos, out=one).addcmul_(second, sin, value=-way)
    torch.mul(second, cos, out=two).addcmul_(first, sin, value=way)
    same.copy_(rest)
    return out


@cache
def _is_this(theirs: Callable[..., tuple[Tensor, Tensor]]) -> bool:
    """Whether a model's function computes it: tried on whole heads, on parts of them, and in narrower numbers."""
    whole = _agrees(theirs, 8, torch.float32)
    return whole is True and _agrees(theirs, 4, torch.float32) is not False and bool(_agrees(theirs, 8, torch.bfloat16))


@torch.no_grad()
def _agrees(theirs: Callable[..., tuple[Tensor, Tensor]], width: int, dtype: torch.dtype) -> bool | None:
    """With ours, on heads of 8 of which ``width`` are turned; None where it takes no such thing."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 2, 3, 8), (1, 1, 3, 8), (1, 3, width // 2))
    query, key, angle = (torch.randn(shape, generator=generator) for shape in shapes)
    cos, sin = (f(angle).repeat(1, 1, 2) for f in (torch.cos, torch.sin))
    given = query.to(dtype), key.to(dtype), cos, sin
    try:
        found = theirs(*given)
    except Exception:
        return None
    pairs = list(zip(found, turned(*given), strict=True))
    return all(a.dtype == b.dtype and torch.allclose(a, b, _CLOSE, _CLOSE) for a, b in pairs)
