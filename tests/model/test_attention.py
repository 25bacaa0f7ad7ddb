"""Packed attention by itself: who sees whom, and which implementation a device gets."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from prospect.errors import UserError
from prospect.model.attention import NAME, NAME_FLASH, Packing, choose, packed_attention

CPU = torch.device("cpu")
BOUNDS = (0, 4, 5, 12)
T = BOUNDS[-1]


def visible(window: int | None = None, softcap: float | None = None) -> torch.Tensor:
    """[T, T] bool: whether the output at i depends on the value at j."""
    torch.manual_seed(0)
    query, key = torch.randn(1, 4, T, 8), torch.randn(1, 2, T, 8)
    value = torch.eye(T).expand(1, 2, T, T).contiguous()  # the output then is the attention weights
    query, key = (torch.nn.functional.pad(x, (0, T - 8)) for x in (query, key))
    packing = Packing.of(BOUNDS, CPU)
    out, _ = packed_attention(torch.nn.Module(), query, key, value, None, packing, 0.3, window, softcap)
    assert out.shape == (1, T, 4, T)
    torch.testing.assert_close(out.sum(-1), torch.ones(1, T, 4))
    return (out[0] > 0).all(1)


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("window", [None, 3, 100])
def test_a_token_sees_the_earlier_ones_of_its_own_sequence(window: int | None, softcap: float | None) -> None:
    sequence = torch.tensor([sum(i >= b for b in BOUNDS[1:]) for i in range(T)])
    at = torch.arange(T)
    wanted = (sequence[:, None] == sequence) & (at[:, None] >= at)
    if window is not None:
        wanted &= at[:, None] - at < window
    assert torch.equal(visible(window, softcap), wanted)


def test_attention_sinks_are_refused() -> None:
    x = torch.zeros(1, 1, T, 8)
    with pytest.raises(UserError, match="attention sinks are not supported"):
        packed_attention(torch.nn.Module(), x, x, x, None, Packing.of(BOUNDS, CPU), s_aux=torch.zeros(1))


def test_the_choice_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert choose(False, CPU, torch.float32) == (NAME, "one SDPA call a sequence")
    assert "CUDA only" in choose(True, CPU, torch.float32)[1]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose(True, cuda, torch.bfloat16) == (
        NAME,
        "torch varlen (FlashAttention-2; flash-attn is not installed, this is the same kernel)",
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert choose(True, cuda, torch.bfloat16)[0] == NAME_FLASH
    assert choose(False, cuda, torch.bfloat16)[0] == NAME
    assert choose(True, cuda, torch.float32) == (
        NAME,
        "one SDPA call a sequence (the varlen kernel wants 16 bits, flash-attn too)",
    )
