"""Log-probabilities of given tokens without the [T, V] logits.

log p(y) = z_y - logsumexp(z), z = W h: computed tile by tile over the positions that are trained, so that the largest
tensor is one tile of a fixed number of bytes whatever batch and vocabulary are. Everything after the matrix product is
float32 (float64 when the model is): log-softmax in bf16 is off by whole nats per answer.
Honours what models do between head and softmax: bias, a scale (Cohere, Granite), a soft cap (Gemma 2).

Four products of a tile with W or h where W is trained: logits, logits again in the backward pass, and the derivatives
by h and by W. Without the second logits for the first tiles of a pass, as many as a fixed number of bytes holds; for
all of them where each token's weight in the loss is known in the forward pass (Hsu et al. 2024, arXiv 2410.10989,
section 3.2). With one derivative, kept for the backward pass, where W is frozen.

What a tile goes through between its products may be compiled into kernels that read it once, or the whole given to the
kernels of cut-cross-entropy (Wijmans et al. 2024, arXiv 2411.09009): ``HeadKernel``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prospect.config.schema import HeadKernel
from prospect.errors import UserError
from prospect.model.adapter import covers_rows, output_weights
from prospect.model.between import Between, Compiled
from prospect.model.products import add_product, product

_TILE = {"cpu": (256, 32 * 2**20), "cuda": (4096, 512 * 2**20)}  # most positions and bytes of a tile in float32
_KEPT = {"cpu": 64 * 2**20}  # bytes of tiles that wait for the backward pass; on a GPU as many would be a few positions


@dataclass(frozen=True, slots=True)
class Head:
    """The output layer of a causal language model and what follows it.

    ``accumulates``: gradients come from ``backward`` calls only, which may add to the weight's ``.grad`` in place.
    """

    linear: Any  # nn.Linear, or peft's cover on one in which rows of some tokens are trained
    scale: float = 1.0
    softcap: float | None = None
    accumulates: bool = False
    kernel: HeadKernel = HeadKernel.torch

    @property
    def between(self) -> Between:
        """What a tile goes through between its products."""
        return (Compiled if self.kernel is HeadKernel.compiled else Between)(self.scale, self.softcap)

    @classmethod
    def of(cls, model: PreTrainedModel) -> Head:
        """Read from a transformers model; refuses an output layer that is not linear."""
        linear = model.get_output_embeddings()
        if not isinstance(linear, nn.Linear) and not covers_rows(linear):
            raise UserError(f"model: {type(model).__name__} has no linear output layer")
        config = model.config
        scale = getattr(config, "logit_scale", None) or 1.0
        scale /= getattr(config, "logits_scaling", None) or 1.0
        return cls(linear, scale, getattr(config, "final_logit_softcapping", None), accumulates=True)

    def logps(self, hidden: Tensor, targets: Tensor, known: float | None = None) -> Tensor:
        """log p(targets[i] | hidden[i]); hidden [N, H], targets [N] -> [N] float32 (float64 for a float64 model).

        ``known``: the derivative of what will be minimized by each of them, the same for all. It must be what the
        backward pass brings, which is made here already.
        """
        weight, bias = output_weights(self.linear)
        if self.kernel is HeadKernel.cut and len(targets):
            dtype = _dtype(hidden, weight)
            return _cut_logps(hidden.to(dtype), weight.to(dtype), targets, self.softcap)
        frozen = not weight.requires_grad and (bias is None or not bias.requires_grad)
        early = torch.is_grad_enabled() and hidden.requires_grad and (frozen or known is not None)
        apply: Any = _EarlyLogps.apply if early else _TokenLogps.apply
        last = (None if frozen else known) if early else self._room(hidden.device)
        result = apply(hidden, weight, bias, targets, self, last)
        assert isinstance(result, Tensor)
        return result

    @torch.no_grad()
    def log_squares(self, hidden: Tensor) -> Tensor:
        """log Σ_v p(v | hidden[i])²: how likely two draws are the same token; hidden [N, H] -> [N], no gradient."""
        weight, bias = output_weights(self.linear)
        cast = weight.to(_dtype(hidden, weight))
        found = []
        for rows in hidden.to(cast.dtype).split(tile_size(len(weight), hidden.device)):
            logits, _ = self.between.logits(rows, cast, bias)
            normalizers = logits.logsumexp(-1)
            found.append(logits.mul_(2).logsumexp(-1) - 2 * normalizers)
        return torch.cat(found)

    def _room(self, device: torch.device) -> int:
        """Bytes of tiles that may wait for the backward pass."""
        plain = self.kernel is HeadKernel.torch and self.softcap is None and torch.is_grad_enabled()
        return _KEPT.get(device.type, 0) if plain else 0

    def sink(self, weight: Tensor) -> Tensor:
        """Where the weight's gradient is added up: its own ``.grad`` where nobody else waits for it, else zeros."""
        hooks = weight._backward_hooks or weight._post_accumulate_grad_hooks
        if not self.accumulates or not weight.is_leaf or hooks:
            return torch.zeros_like(weight)
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        return weight.grad


def _dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """What the matrix product is computed in."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def tile_size(vocabulary: int, device: torch.device) -> int:
    """Positions of one tile."""
    most, size = _TILE.get(device.type, _TILE["cpu"])
    return max(1, min(most, size // (4 * vocabulary)))


class _Gradients:
    """Derivatives by hidden states, weight and bias, added up tile by tile."""

    def __init__(self, needed: tuple[bool, ...], hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head):
        self.head = head
        self.hidden = torch.empty_like(hidden) if needed[0] else None
        self.weight = head.sink(weight) if needed[1] else None
        self.bias = torch.zeros_like(bias) if needed[2] and bias is not None else None
        self.in_place = self.weight is not None and self.weight is weight.grad

    def add(self, tile: slice, slopes: Tensor, rows: Tensor, cast: Tensor) -> None:
        """One tile's part; ``slopes`` [n, V]: the loss by the products rows @ castᵀ."""
        if self.bias is not None:
            self.bias += slopes.sum(0)
        d = slopes.to(rows.dtype)
        if self.hidden is not None:
            self.hidden[tile] = product(d, cast)
        if self.weight is not None:
            if self.weight.dtype == d.dtype:
                add_product(self.weight, d.T, rows)
            else:
                self.weight += d.T @ rows

    def found(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """What autograd is still to be given."""
        return self.hidden, None if self.in_place else self.weight, self.bias


class _TokenLogps(torch.autograd.Function):
    """Logits are computed again in the backward pass, but for those there was room to keep."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: Head, room: int
    ) -> Tensor:
        dtype = _dtype(hidden, weight)
        cast = weight.to(dtype)
        found = torch.empty(len(targets), dtype=torch.promote_types(dtype, torch.float32), device=hidden.device)
        normalizers = torch.empty_like(found)
        between, kept = head.between, {}
        for at, tile in enumerate(_tiles(hidden, weight)):
            rows = hidden[tile].to(dtype)
            room -= len(rows) * len(weight) * found.element_size()
            if room >= 0:
                found[tile], normalizers[tile], kept[at] = between.logps_and_shares(rows, cast, bias, targets[tile])
            else:
                found[tile], normalizers[tile] = between.logps(rows, cast, bias, targets[tile])
        ctx.save_for_backward(hidden, weight, bias, targets, normalizers)
        ctx.head, ctx.dtype, ctx.kept = head, dtype, kept
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, normalizers = ctx.saved_tensors
        cast = weight.to(ctx.dtype)
        gradients = _Gradients(ctx.needs_input_grad, hidden, weight, bias, ctx.head)
        between = ctx.head.between
        for at, tile in enumerate(_tiles(hidden, weight)):
            rows, kept = hidden[tile].to(ctx.dtype), ctx.kept.pop(at, None)  # none where this pass is not the first
            slopes = (
                between.slopes(rows, cast, bias, targets[tile], normalizers[tile], grads[0][tile])
                if kept is None
                else between.slopes_of(kept, targets[tile], grads[0][tile])
            )
            gradients.add(tile, slopes, rows, cast)
        return *gradients.found(), None, None, None


class _EarlyLogps(torch.autograd.Function):
    """Derivatives are made in the forward pass: by ``known``, or by 1 where only the hidden states get any."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: Head, known: float | None
    ) -> Tensor:
        dtype = _dtype(hidden, weight)
        cast = weight.to(dtype)
        found = torch.empty(len(targets), dtype=torch.promote_types(dtype, torch.float32), device=hidden.device)
        gradients = _Gradients(ctx.needs_input_grad, hidden, weight, bias, head)
        between, given = head.between, 1.0 if known is None else known
        for tile in _tiles(hidden, weight):
            rows = hidden[tile].to(dtype)
            found[tile], slopes = between.logps_and_slopes(rows, cast, bias, targets[tile], given)
            gradients.add(tile, slopes, rows, cast)
        ctx.save_for_backward(*gradients.found())
        ctx.known = known
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        by_hidden, by_weight, by_bias = ctx.saved_tensors
        if ctx.known is None:
            by_hidden = (by_hidden * grads[0][:, None]).to(by_hidden.dtype)
        else:  # checked where the numbers are, without waiting for them
            torch._assert_async((grads[0] == ctx.known).all(), "the loss is not linear in the log-probabilities")
        return by_hidden, by_weight, by_bias, None, None, None


def _cut_logps(hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    """By kernels that hold no logits at all; every one counts in the derivatives, however small its probability."""
    from cut_cross_entropy import linear_cross_entropy

    losses: Tensor = linear_cross_entropy(hidden, weight, targets, softcap=softcap, reduction="none", filter_eps=None)
    return -losses.float()


def _tiles(hidden: Tensor, weight: Tensor) -> list[slice]:
    size = tile_size(len(weight), hidden.device)
    return [slice(at, at + size) for at in range(0, len(hidden), size)]
