"""Matrix products of float32 on a CPU, through oneDNN where it is the faster one.

torch gives them to its BLAS, in its wheels MKL; oneDNN, which comes with torch too, was twice as fast on an AMD EPYC
with AVX-512, and a quarter slower on an Intel Xeon (docs/performance.md). The processor decides, so that the same
machine always computes the same. It makes a kernel for each new shape, so that small products stay where they were.
Everything that torch computes in another precision, on another device or over several of them is left alone.
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LINEAR = "mkldnn::_linear_pointwise"  # the operation's name, for those who watch operations
LEAST = 2**26  # multiplications: a third of a millisecond, about what making a kernel takes
_AT_ONCE = 4096  # rows of a sum, which oneDNN first writes elsewhere


def product(left: Tensor, right: Tensor) -> Tensor:
    """left [M, K] @ right [K, N], without gradients of its own."""
    if _apt(left, right):
        return _onednn(left, right.T)
    return left @ right


def add_product(into: Tensor, left: Tensor, right: Tensor) -> None:
    """into [M, N] += left [M, K] @ right [K, N], with no second tensor of that size."""
    if not _apt(left, right):
        torch.addmm(into, left, right, out=into)
        return
    for some, rows in zip(into.split(_AT_ONCE), left.split(_AT_ONCE), strict=True):
        some += _onednn(rows, right.T)


def use_products(model: nn.Module) -> None:
    """Let the linear layers of a model that is on a CPU compute with them; layers and weights keep their names."""
    if not available():
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear


def available() -> bool:
    """Whether oneDNN is the faster one here: it has kernels for the widest vectors, and MKL was not made for them."""
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.backends.mkldnn.is_available() and wide and not _made_by_intel()


@cache
def _made_by_intel() -> bool:
    cpus = Path("/proc/cpuinfo")
    return cpus.is_file() and "GenuineIntel" in cpus.read_text(encoding="utf-8")


class Linear(nn.Linear):
    """torch's, but for who multiplies."""

    def forward(self, input: Tensor) -> Tensor:
        """x Wᵀ + b; input [..., K] -> [..., N]."""
        plain = type(input) is Tensor and type(self.weight) is nn.Parameter and not torch.is_autocast_enabled("cpu")
        if not plain or not _apt(input, self.weight.T):
            return super().forward(input)
        apply: Any = _Linear.apply
        out = apply(input.reshape(-1, self.in_features), self.weight, self.bias)
        assert isinstance(out, Tensor)
        return out.view(*input.shape[:-1], self.out_features)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        by_rows, by_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(rows if by_weight else None, weight if by_rows else None)
        return _onednn(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        by_rows, by_weight, by_bias = ctx.needs_input_grad
        return (
            product(grad, weight) if by_rows else None,
            product(grad.T, rows) if by_weight else None,
            grad.sum(0) if by_bias else None,
        )


def _apt(left: Tensor, right: Tensor) -> bool:
    """Whether left [..., K] @ right [K, N] is one that oneDNN is the faster at."""
    return (
        left.dtype == right.dtype == torch.float32
        and left.device.type == "cpu"
        and left.numel() * right.shape[1] >= LEAST
        and available()
    )


def _onednn(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows [M, K] @ weight [N, K]ᵀ + bias: inductor's way into oneDNN, which lays out rows that are strided anew."""
    if not rows.is_contiguous():
        rows = _place.take(rows)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return out


class _Place(threading.local):
    """Where strided rows are laid out: fresh memory, tens of MB each time, would be most of the work."""

    def __init__(self) -> None:
        self.room = torch.empty(0)

    def take(self, rows: Tensor) -> Tensor:
        """A copy that holds until the next."""
        if len(self.room) < rows.numel():
            self.room = torch.empty(rows.numel())
        return self.room[: rows.numel()].view(rows.shape).copy_(rows)


_place = _Place()
