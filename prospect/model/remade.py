"""Activations that the backward pass makes again instead of keeping: all that takes no matrix product.

Between two products a block normalizes, squashes and multiplies. What comes out is an input of the next product, so
that autograd keeps it: of a gated MLP of width I 4 I numbers a token (gate, its activation, up, their product), of a
norm of width H 3 H. Here it keeps what a product has made, and of the rest how to make it: 2 I and H.

A pass runs with hooks that see each tensor that is to be kept. One that lies where a recipe says it can be made again
is exchanged for the recipe, whichever operation wanted it: a linear layer, an adapter on one, a multiplication.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from prospect.model.norm import eps_of, plus_of, rms_norm

_GATED = (
    ["down_proj", "gate_proj", "up_proj"],
    ["down_proj", "gate_up_proj"],
)  # layers of an MLP, as transformers calls them


@dataclass(slots=True)
class Recipe:
    """How to make a tensor again. What was made lasts until it has been asked for ``uses`` times."""

    make: Callable[..., Tensor]
    inputs: tuple[Kept, ...]
    uses: int = 0
    made: Tensor | None = None

    def take(self) -> Tensor:
        """The tensor, once more."""
        if self.made is None:
            with torch.no_grad():
                self.made = self.make(*map(_unpack, self.inputs))
        found, self.uses = self.made, self.uses - 1
        if self.uses <= 0:
            self.made = None
        return found


@dataclass(frozen=True, slots=True)
class View:
    """A recipe's tensor in some shape."""

    recipe: Recipe
    shape: torch.Size


@dataclass(frozen=True, slots=True)
class Plain:
    """A tensor that is kept itself, without its history."""

    tensor: Tensor
    version: int  # when it was kept


Kept = Plain | View


@dataclass(frozen=True, slots=True)
class Noted:
    """A tensor that is alive, as it was when its recipe was noted."""

    tensor: weakref.ref[Tensor]
    version: int
    recipe: Recipe


class Recipes:
    """What of one model's activations can be made again, while it is alive."""

    def __init__(self) -> None:
        self.known: dict[int, Noted] = {}  # by address

    def note(self, made: Tensor, make: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """``made`` as it is; whoever wants to keep it will be given ``make(*inputs)`` when it asks for it."""
        if torch.is_grad_enabled() and made.requires_grad and made.is_contiguous():
            at = made.data_ptr()
            recipe = Recipe(make, tuple(self._pack(x.detach()) for x in inputs))
            self.known[at] = Noted(weakref.ref(made, partial(self._forget, at)), made._version, recipe)
        return made

    def hooks(self) -> saved_tensors_hooks:
        """The context of a forward pass."""
        return saved_tensors_hooks(self._pack, _unpack)

    def _forget(self, at: int, gone: weakref.ref[Tensor]) -> None:
        if at in self.known and self.known[at].tensor is gone:
            del self.known[at]

    def _pack(self, tensor: Tensor) -> Kept:
        noted = self.known.get(tensor.data_ptr())
        if noted is None or not _same(noted, tensor):
            return Plain(tensor, tensor._version)
        noted.recipe.uses += 1
        return View(noted.recipe, tensor.shape)


def _same(noted: Noted, wanted: Tensor) -> bool:
    """Whether a tensor at the address of a noted one holds the same numbers.

    While that one is alive, nothing else lies there; but it may have been changed, or a part of it be wanted.
    """
    made = noted.tensor()
    if made is None or made._version != noted.version:
        return False
    return wanted.is_contiguous() and wanted.numel() == made.numel() and wanted.dtype == made.dtype


def _unpack(kept: Kept) -> Tensor:
    """Raises RuntimeError where a tensor was changed in place, as autograd itself does."""
    if isinstance(kept, View):
        return kept.recipe.take().view(kept.shape)
    if kept.tensor._version != kept.version:
        raise RuntimeError("a tensor that the backward pass needs was changed in place")
    return kept.tensor


def remake_activations(model: PreTrainedModel) -> None:
    """Let passes of the model with gradients keep recipes; modules and weights keep their names.

    Norms are ours from then on, also in passes without gradients.
    """
    recipes, inner = Recipes(), model.base_model
    for module in list(model.modules()):
        plus, eps = plus_of(module), eps_of(module)
        if plus is not None and eps is not None:
            module.forward = partial(_norm, recipes, module, eps, plus)
        activation = _activation_of(module)
        if activation is not None and _is_gated(module, activation, model.dtype):
            module.forward = partial(_gated, recipes, module, activation)
        if activation is not None:
            activation.forward = partial(_activation, recipes, activation.forward)
    inner.forward = partial(_keeping, recipes, inner.forward)


def _keeping(recipes: Recipes, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with recipes.hooks():
        return forward(*args, **kwargs)


def _norm(recipes: Recipes, norm: nn.Module, eps: float, plus: float, x: Tensor) -> Tensor:
    weight = norm.weight
    assert isinstance(weight, Tensor)
    return recipes.note(rms_norm(x, weight, eps, plus), lambda x, weight: rms_norm(x, weight, eps, plus), x, weight)


def _activation(recipes: Recipes, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return recipes.note(forward(x), forward, x)


def _gated(recipes: Recipes, mlp: Any, activation: nn.Module, x: Tensor) -> Tensor:
    """An MLP like Llama's, or like Phi-3's, which has gate and up in one layer."""
    if hasattr(mlp, "gate_up_proj"):
        gate, up = mlp.gate_up_proj(x).chunk(2, dim=-1)
    else:
        gate, up = mlp.gate_proj(x), mlp.up_proj(x)
    active = activation(gate)
    out: Tensor = mlp.down_proj(recipes.note(active * up, torch.mul, active, up))
    return out


def _activation_of(module: nn.Module) -> nn.Module | None:
    """The activation function of an MLP, if this is one."""
    found = (getattr(module, name, None) for name in ("act", "act_fn", "activation_fn"))
    return next((x for x in found if isinstance(x, nn.Module)), None)


@torch.no_grad()
def _is_gated(mlp: nn.Module, activation: nn.Module, dtype: torch.dtype) -> bool:
    """Whether a module is what ``_gated`` computes and nothing more: tried on two tokens, to the last bit."""
    layers = sorted(name for name, _ in mlp.named_children() if name.endswith("_proj"))
    down = getattr(mlp, "down_proj", None)
    if not isinstance(down, nn.Linear) or layers not in _GATED:
        return False
    x = torch.linspace(-2, 3, 2 * down.out_features, device=down.weight.device).sin().view(1, 2, -1).to(dtype)
    return torch.equal(_gated(Recipes(), mlp, activation, x), mlp(x))
