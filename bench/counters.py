"""What a stretch of training executes, counted instead of timed: the same numbers on a busy machine and an idle one.

Tokens are those that pass an embedding. FLOPs are those of matrix products, by torch.utils.flop_counter, which lacks
attention as a CPU computes it and products that are added in place. Memory is the greatest size of all tensors that the
stretch has made and still holds.
"""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten
Shape = tuple[int, ...]


def _pairs(queries: int, keys: int, causal: bool) -> int:
    """How many pairs of a query and a key that it sees; a causal kernel leaves out the others."""
    return sum(min(i + 1, keys) for i in range(queries)) if causal else queries * keys


def _attention(query: Shape, key: Shape, value: Shape, dropout: float = 0.0, causal: bool = False, **_: Any) -> int:
    """Scores, and their products with the values; all heads of the queries, however few the keys have."""
    batch, heads, queries, width = query
    return 2 * batch * heads * _pairs(queries, key[2], causal) * (width + value[3])


def _attention_backward(
    grad: Shape, query: Shape, key: Shape, value: Shape, out: Shape, lse: Shape, dropout: float, causal: bool, **_: Any
) -> int:
    """Scores once more, and two products for each of the forward pass's two."""
    batch, heads, queries, width = query
    return 2 * batch * heads * _pairs(queries, key[2], causal) * (3 * width + 2 * value[3])


def _linear(rows: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    """A matrix product by oneDNN."""
    return 2 * prod(rows) * weight[0]


def _in_place(into: Shape, left: Shape, right: Shape, **_: Any) -> int:
    """A matrix product, or several, that is added to what is there."""
    return 2 * prod(left) * right[-1]


_UNKNOWN_TO_TORCH = {
    aten.addmm_: _in_place,
    aten.baddbmm_: _in_place,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
if torch.backends.mkldnn.is_available():
    _UNKNOWN_TO_TORCH[torch.ops.mkldnn._linear_pointwise] = _linear


@dataclass(slots=True)
class Counters:
    """A context that counts."""

    tokens: int = 0  # in forward passes with gradients
    frozen_tokens: int = 0  # in those without: reference values, mismatched answers
    flops: int = 0
    peak_bytes: int = 0
    _inside: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Counters:
        products = FlopCounterMode(display=False, custom_mapping=_UNKNOWN_TO_TORCH)
        self._inside.callback(self._take, products)
        self._inside.enter_context(products)
        self._inside.enter_context(_Tensors(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._inside.close()

    def _take(self, products: FlopCounterMode) -> None:
        self.flops = products.get_total_flops()


class _Tensors(TorchDispatchMode):
    """Sees every operation: counts the tokens that are embedded and the bytes that are held."""

    def __init__(self, found: Counters) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.found, self.held = found, 0
        self.known = weakref.WeakSet[torch.UntypedStorage]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is aten.embedding.default:
            if torch.is_grad_enabled():
                self.found.tokens += args[1].numel()
            else:
                self.found.frozen_tokens += args[1].numel()
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and made.untyped_storage()._cdata not in given:
                self._hold(made.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage in self.known:
            return
        self.known.add(storage)
        size = storage.nbytes()
        self.held += size
        self.found.peak_bytes = max(self.found.peak_bytes, self.held)
        weakref.finalize(storage, self._let_go, size)

    def _let_go(self, size: int) -> None:
        self.held -= size
