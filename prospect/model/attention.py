"""Attention over packed sequences: each token sees the earlier tokens of its own sequence and nothing else.

Registered with transformers as one more attention implementation, so every model that follows its attention interface
runs packed without a line of its own. The bounds of the sequences are passed explicitly: deriving them from position
ids, as the library's own detection does, cuts or merges sequences as soon as positions restart inside a row.

CPU: a loop of scaled-dot-product calls, one a sequence (measured faster than one call with a block mask).
CUDA: torch's varlen kernel, or flash-attn where it is asked for and installed.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from prospect.errors import UserError

NAME = "prospect_packed"
NAME_FLASH = "prospect_packed_flash"


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the sequences of a packed row begin and end."""

    lengths: list[int]  # n
    offsets: Tensor  # n+1 bounds as int32 on the device, for the kernels
    longest: int

    @classmethod
    def of(cls, bounds: tuple[int, ...], device: torch.device) -> Packing:
        """From host offsets; one small copy to the device a batch, none a layer."""
        lengths = [end - start for start, end in pairwise(bounds)]
        return cls(lengths, torch.tensor(bounds, dtype=torch.int32, device=device), max(lengths))


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,  # [1, heads, T, d]
    key: Tensor,  # [1, kv_heads, T, d]
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each packed sequence; returns [1, T, heads, d] as the interface wants it."""
    if unused.get("s_aux") is not None:
        raise UserError("model: attention sinks are not supported by packed attention")
    on_kernel = query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and softcap is None
    if on_kernel:
        return _varlen(query, key, value, packing, scaling, sliding_window), None
    # split, not slices: a slice's backward fills a gradient of the whole row with zeros, once for each sequence
    parts = zip(*(x.split(packing.lengths, dim=2) for x in (query, key, value)), strict=True)
    pieces = [_one_sequence(q, k, v, scaling, sliding_window, softcap) for q, k, v in parts]
    return torch.cat(pieces, dim=2).transpose(1, 2), None


def packed_flash_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """The same with the flash-attn package, which also knows soft-capping."""
    from flash_attn import flash_attn_varlen_func

    if unused.get("s_aux") is not None:
        raise UserError("model: attention sinks are not supported by packed attention")
    out = flash_attn_varlen_func(
        *(x.squeeze(0).transpose(0, 1) for x in (query, key, value)),
        cu_seqlens_q=packing.offsets,
        cu_seqlens_k=packing.offsets,
        max_seqlen_q=packing.longest,
        max_seqlen_k=packing.longest,
        softmax_scale=scaling,
        causal=True,
        window_size=(-1, 0) if sliding_window is None else (sliding_window - 1, 0),
        softcap=softcap or 0.0,
    )
    return out.unsqueeze(0), None


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
    out = varlen_attn(
        query,
        key,
        value,
        packing.offsets,
        packing.offsets,
        packing.longest,
        packing.longest,
        scale=scaling,
        window_size=(-1, 0) if window is None else (window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],  # heads, now that tokens come first
    )
    assert isinstance(out, Tensor)
    return out.unsqueeze(0)


def _one_sequence(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None, softcap: float | None
) -> Tensor:
    length = query.shape[2]
    if softcap is None and (window is None or length <= window):
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
    at = torch.arange(length, device=query.device)
    visible = at[:, None] >= at[None, :]
    if window is not None:
        visible &= at[:, None] - at[None, :] < window
    if softcap is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scaling, enable_gqa=True)
    repeats = query.shape[1] // key.shape[1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.repeat_interleave(repeats, 1).transpose(2, 3) * scale
    scores = (scores / softcap).tanh() * softcap
    weights = (
        scores.masked_fill(~visible, float("-inf"))
        .softmax(-1, dtype=torch.promote_types(query.dtype, torch.float32))
        .to(query.dtype)
    )
    return weights @ value.repeat_interleave(repeats, 1)


def choose(use_flash_attention: bool, device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """The implementation to ask transformers for, and the words that tell the user which it is."""
    if device.type != "cuda":
        said = " (flash-attn runs on CUDA only)" if use_flash_attention else ""
        return NAME, f"one SDPA call a sequence{said}"
    if dtype == torch.float32:
        said = ", flash-attn too" if use_flash_attention else ""
        return NAME, f"one SDPA call a sequence (the varlen kernel wants 16 bits{said})"
    if use_flash_attention and importlib.util.find_spec("flash_attn") is not None:
        return NAME_FLASH, "flash-attn (varlen)"
    said = "; flash-attn is not installed, this is the same kernel" if use_flash_attention else ""
    return NAME, f"torch varlen (FlashAttention-2{said})"


AttentionInterface.register(NAME, packed_attention)
AttentionInterface.register(NAME_FLASH, packed_flash_attention)
