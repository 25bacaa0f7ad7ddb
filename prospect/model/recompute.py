"""Recomputing the inside of MLPs in the backward pass: what a matrix product has made is kept, the rest is made again.

A gated MLP of width I keeps 4 I numbers a token and layer (gate, its activation, up, and their product); with this 2 I,
for well below 2% more work. Recomputing whole blocks (``activation_checkpointing=true``) costs a third more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from prospect.errors import UserError
from prospect.model.products import LINEAR

MLPS = ("mlp", "feed_forward", "ffn")  # of a block's MLP in transformers' models
_PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm)


def blocks(model: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    """The layers that a transformers model stacks."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def recompute_mlps(model: PreTrainedModel) -> None:
    """Let each block's MLP keep its matrix products only.

    Raises:
        UserError: the blocks have no MLP that could be told apart.
    """
    every = blocks(model)
    found = [mlp for block in every for name, mlp in block.named_children() if name in MLPS]
    if not found or len(found) < len(every):
        raise UserError(
            f"model.activation_checkpointing: mlp, but {len(every) - len(found)} of the {len(every)} blocks of "
            f"{type(model).__name__} have none to be found; true recomputes whole blocks"
        )
    for mlp in found:
        mlp.forward = partial(_recomputed, mlp.forward)  # the module keeps its name, as its weights do


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=_contexts, **kwargs)


def _contexts() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Keep products into the wider space; the way back comes last, and nothing going backward asks for it.

    oneDNN's way back is kept as well: it would be made before what it was made of is let go.
    """
    widens = getattr(op, "overloadpacket", None) in _PRODUCTS and args[-1].shape[-1] > args[-1].shape[-2]
    return CheckpointPolicy.MUST_SAVE if widens or op.name() == LINEAR else CheckpointPolicy.PREFER_RECOMPUTE
