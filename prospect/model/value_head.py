"""A value head: one number a trained position, linear in the model's last hidden state there.

It estimates what the rest of an answer will earn (the critic of PPO). Hidden states are taken as they are: the critic's
loss moves the head and never the policy. It starts at zero and computes in its own precision, whatever the model's.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prospect.errors import UserError
from prospect.model.pretrained import ADDED, Differences

FILE = "v_head.safetensors"  # beside the policy's own weights


class ValueHead(nn.Module):
    """Hidden states [N, width] to values [N]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(1))

    @classmethod
    def of(cls, width: int, folder: Path | None, continues: bool = False) -> ValueHead:
        """The head that was saved in ``folder``, if one was; else a fresh one, where nothing ``continues``.

        Raises:
            UserError: it is gone, or of a model of another width.
        """
        head, file = cls(width), None if folder is None else folder / FILE
        if file is None or not (continues or file.is_file()):
            return head
        stored = _read(file) if file.is_file() else {}
        wanted = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
        assert tuple(wanted) == ADDED["value"]
        found = Differences.between({name: tuple(tensor.shape) for name, tensor in stored.items()}, wanted)
        found.refuse(f"model: the value head of {file}")
        head.load_state_dict(stored)
        return head

    def save(self, folder: Path) -> None:
        """Write it beside the policy; transformers does not read this file."""
        save_file({name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}, folder / FILE)

    def forward(self, hidden: Tensor) -> Tensor:
        """One value a row."""
        with torch.autocast(hidden.device.type, enabled=False):
            return hidden.detach().to(self.weight.dtype) @ self.weight + self.bias


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"model: the value head of {file} could not be read ({error})") from error
