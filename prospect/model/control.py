"""Control tokens: special tokens between prompt and answer that say which kind of answer follows (conditional SFT).

They join the tokenizer, and the embedding gets a row for each that it has not learned yet. Which ones it has learned
stands in the model's own config.json, so that the rows of a loaded run are never drawn anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prospect.errors import UserError

if TYPE_CHECKING:  # trainers name their control tokens, and a configuration is checked before transformers is imported
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SPREAD = 0.1  # of a new row around the mean row, in standard deviations: the model hardly ever writes it by itself


@dataclass(frozen=True, slots=True)
class ControlTokens:
    """The token that announces a desirable answer, and the one that announces an undesirable one."""

    desirable: str
    undesirable: str

    def __post_init__(self) -> None:
        if not all(self.names) or self.desirable == self.undesirable:
            raise UserError(f"loss: the control tokens {self.names} must be two different names")

    @property
    def names(self) -> tuple[str, str]:
        """Both."""
        return self.desirable, self.undesirable


def add_control_tokens(tokenizer: PreTrainedTokenizerBase, control: ControlTokens) -> None:
    """Make them special tokens; those that a loaded run's tokenizer already has stay what they are."""
    tokenizer.add_special_tokens({"extra_special_tokens": control.names}, replace_extra_special_tokens=False)


def control_ids(tokenizer: PreTrainedTokenizerBase, control: ControlTokens) -> list[int]:
    """Their token ids: the embedding rows that a frozen base has to train all the same."""
    return [tokenizer.get_vocab()[name] for name in control.names]


def add_control_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, control: ControlTokens, seed: int
) -> None:
    """Give each control token that the model has not learned a row of its own, the same in every process.

    Raises:
        UserError: a control token that is another token of this model.
    """
    learned: dict[str, int] = getattr(model.config, "control_tokens", None) or {}
    ids = dict(zip(control.names, control_ids(tokenizer, control), strict=True))
    fresh = sorted(i for name, i in ids.items() if learned.get(name) != i)
    known = len(tokenizer) - len(fresh)
    if any(i < known for i in fresh):
        taken = next(name for name, i in ids.items() if i in fresh and i < known)
        raise UserError(f"loss: the control token {taken} is a token that this model has already; choose another name")
    rows = len(_vocabulary(model)[0])
    if fresh and known <= rows:  # else the tokenizer is another model's, which the caller says
        if fresh[-1] >= rows:  # models often have spare rows; these have not enough
            model.resize_token_embeddings(fresh[-1] + 1, mean_resizing=False)
        for weight in _vocabulary(model):
            _draw(weight, known, fresh, seed)
    model.config.control_tokens = {**learned, **ids}


def _vocabulary(model: PreTrainedModel) -> list[Tensor]:
    """Parameters with a row for each token: input and output embedding, which may be one, and the output's bias."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    found = [x for layer in layers for x in (layer.weight, getattr(layer, "bias", None)) if isinstance(x, Tensor)]
    return list({id(x): x for x in found}.values())


@torch.no_grad()
def _draw(weight: Tensor, known: int, fresh: list[int], seed: int) -> None:
    """New rows near the mean of the known ones (Hewitt 2021)."""
    rows = weight[:known].double()
    noise = torch.randn((len(fresh), *weight.shape[1:]), generator=torch.Generator().manual_seed(seed)).double()
    weight[fresh] = (rows.mean(0) + _SPREAD * rows.std(0) * noise.to(weight.device)).to(weight.dtype)
