"""Regional torch.compile: the MLP and the norms of each block become fused kernels.

Those are where a block reads and writes memory between matrix products. Attention keeps its own kernels, whose segments
change with every row, and the output layer its tiles. Blocks are alike, so one graph serves them all; lengths are
symbols in it, so it serves every row.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from prospect.errors import MachineError, UserError
from prospect.logs import log

_MLPS = ("mlp", "feed_forward", "ffn")  # of a block's MLP in transformers' models


def compile_on(device: torch.device, model: PreTrainedModel) -> bool:
    """Compile where it pays, before the first step reaches it; whether it does.

    Raises:
        MachineError: there is nothing to compile with.
    """
    if device.type != "cuda":
        log.info("model.compile: left out on this device (no gain was measured on a CPU)")
        return False
    if find_spec("triton") is None:
        raise MachineError("model.compile: needs triton, which this torch came without; leave it out")
    compile_blocks(model)
    return True


def compile_blocks(model: PreTrainedModel, backend: str | Callable[..., object] = "inductor") -> None:
    """Each region is compiled at its first call; modules stay where they are, and so do the names of their weights.

    Raises:
        UserError: the model has no block with an MLP or a norm that could be told apart.
    """
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    regions = [child for block in blocks for name, child in block.named_children() if _is_region(name, child)]
    if not regions:
        raise UserError(f"model.compile: {type(model).__name__} has no MLP or norm to be found in its blocks")
    for region in regions:
        region.compile(backend=backend, dynamic=True)


def _is_region(name: str, child: nn.Module) -> bool:
    """torch's own norms are one kernel each as they are."""
    norm = type(child).__name__.endswith("Norm") and not isinstance(child, nn.LayerNorm | nn.RMSNorm)
    return name in _MLPS or norm
