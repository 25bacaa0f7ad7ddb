"""Attention over packed sequences: each token sees the earlier tokens of its own sequence and nothing else.

A piece of a row is a sequence, or an answer whose prompt lies in front of another: its tokens see that prompt, then
their own. The prompt's keys and values are those of the same forward pass or of an earlier one (``Past``).

Registered with transformers as one more attention implementation, so every model that follows its attention interface
runs packed without a line of its own. The bounds of the sequences are passed explicitly: deriving them from position
ids, as the library's own detection does, cuts or merges sequences as soon as positions restart inside a row.

CPU: a loop of scaled-dot-product calls, one a piece (measured faster than one call with a block mask).
CUDA: torch's varlen kernel, or flash-attn where it is asked for and installed; both align the last query with the last
key, so that keys and values of prompt and answer need only to be laid one after the other.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from prospect.batch import Past, Span, sent
from prospect.errors import UserError

NAME = "prospect_packed"
NAME_FLASH = "prospect_packed_flash"


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the pieces of a packed row begin and end, and what each sees before itself."""

    lengths: list[int]  # n
    before: Sequence[Span]  # n offsets of the row, empty where a piece is a whole sequence
    offsets: Tensor  # n+1 bounds as int32 on the device, for the kernels
    longest: int
    seen: Seen | None = None  # what the kernels take as keys, where it is other than the pieces themselves
    past: Past | None = None
    masks: dict[tuple[int, int, int | None], Tensor] = field(default_factory=dict)  # one for all layers

    @classmethod
    def of(
        cls,
        bounds: Sequence[int],
        device: torch.device,
        before: Sequence[Span] = (),
        past: Past | None = None,
    ) -> Packing:
        """From host offsets; small copies to the device once a batch, none a layer."""
        lengths = [end - start for start, end in pairwise(bounds)]
        before = before or [(start, start) for start in bounds[:-1]]
        offsets = sent(torch.tensor([bound - bounds[0] for bound in bounds], dtype=torch.int32), device)
        shared = any(start < end for start, end in before)
        seen = Seen.of(bounds, before, device) if shared and device.type == "cuda" else None
        return cls(lengths, before, offsets, max(lengths), seen, past)

    def keys_and_values(self, layer: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the row that this pass continues, or of its own; the latter are kept where that was asked for."""
        if self.past is None:
            return key, value
        if self.past.hidden is None:
            self.past.layers[layer] = key.detach(), value.detach()
            return key, value
        return self.past.layers[layer]


@dataclass(frozen=True, slots=True)
class Seen:
    """The keys that pieces see, laid one after the other."""

    index: Tensor  # offsets of the row, int64 on the device
    offsets: Tensor  # n+1 bounds as int32 on the device
    longest: int

    @classmethod
    def of(cls, bounds: Sequence[int], before: Sequence[Span], device: torch.device) -> Seen:
        """What lies before each piece, and the piece."""
        spans = [span for pair in zip(before, pairwise(bounds), strict=True) for span in pair]
        index = torch.cat([torch.arange(*span) for span in spans])
        lengths = [b - a + d - c for (a, b), (c, d) in zip(before, pairwise(bounds), strict=True)]
        offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        return cls(sent(index, device), sent(offsets, device), max(lengths))


def packed_attention(
    module: nn.Module,
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
    past_key, past_value = packing.keys_and_values(module, key, value)
    on_kernel = query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and softcap is None
    if on_kernel:
        key, value = (_seen(x, past, packing) for x, past in ((key, past_key), (value, past_value)))
        return _varlen(query, key, value, packing, scaling, sliding_window), None
    # split, not slices: a slice's backward fills a gradient of the whole row with zeros, once for each piece
    queries, keys, values = (x.split(packing.lengths, dim=2) for x in (query, key, value))
    pieces = [
        _one_piece(*piece, packing.masks, scaling, sliding_window, softcap)
        for piece in zip(
            queries,
            _with_prompts(keys, past_key, packing),
            _with_prompts(values, past_value, packing),
            strict=True,
        )
    ]
    return torch.cat([piece.transpose(1, 2) for piece in pieces], dim=1), None  # as the next layer reads it: no copy


def packed_flash_attention(
    module: nn.Module,
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
    past_key, past_value = packing.keys_and_values(module, key, value)
    key, value = (_seen(x, past, packing) for x, past in ((key, past_key), (value, past_value)))
    seen = packing.seen or packing
    out = flash_attn_varlen_func(
        *(x.squeeze(0).transpose(0, 1) for x in (query, key, value)),
        cu_seqlens_q=packing.offsets,
        cu_seqlens_k=seen.offsets,
        max_seqlen_q=packing.longest,
        max_seqlen_k=seen.longest,
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
    seen = packing.seen or packing
    grouped: dict[str, Any] = {}
    if query.shape[1] != key.shape[1]:  # heads, now that tokens come first
        if "enable_gqa" in inspect.signature(varlen_attn).parameters:
            grouped["enable_gqa"] = True
        else:  # torch before 2.12
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    out = varlen_attn(
        query,
        key,
        value,
        packing.offsets,
        seen.offsets,
        packing.longest,
        seen.longest,
        scale=scaling,
        window_size=(-1, 0) if window is None else (window - 1, 0),
        **grouped,
    )
    assert isinstance(out, Tensor)
    return out.unsqueeze(0)


def _seen(own: Tensor, past: Tensor, packing: Packing) -> Tensor:
    """Keys (or values) as the kernels take them [1, kv_heads, K, d]."""
    if packing.seen is None:
        return own
    row = own if past is own else torch.cat([past, own], dim=2)
    return row.index_select(2, packing.seen.index)


def _with_prompts(pieces: Sequence[Tensor], past: Tensor, packing: Packing) -> Iterator[Tensor]:
    """Keys (or values) of each piece, behind those of what it sees before itself.

    A prompt of this pass is the beginning of another piece; one of an earlier pass has no gradient to mind.
    """
    at = dict(zip(accumulate(packing.lengths, initial=0), pieces, strict=False))
    continues = packing.past is not None and packing.past.hidden is not None
    for piece, (start, end) in zip(pieces, packing.before, strict=True):
        if start == end:
            yield piece
        else:
            prompt = past[:, :, start:end] if continues else at[start][:, :, : end - start]
            yield torch.cat([prompt, piece], dim=2)


def _one_piece(
    query: Tensor,  # [1, heads, Q, d], of the last Q positions
    key: Tensor,  # [1, kv_heads, K, d]
    value: Tensor,
    masks: dict[tuple[int, int, int | None], Tensor],
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    length, seen = query.shape[2], key.shape[2]
    window = None if window is None or seen <= window else window
    if softcap is None and window is None and length == seen:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
    visible = masks.get((length, seen, window))
    if visible is None:
        visible = masks[length, seen, window] = _visible(length, seen, window, query.device)
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


def _visible(length: int, seen: int, window: int | None, device: torch.device) -> Tensor:
    """Which of ``seen`` positions the last ``length`` of them see [length, seen]."""
    at = torch.arange(seen, device=device)
    distance = at[seen - length :, None] - at[None, :]
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


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
