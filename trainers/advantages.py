"""Advantages of single tokens from rewards and a critic's values: GAE. Schulman et al. 2015b, eq. 16.

Tokens of n answers lie one after another, [N]; ``lengths`` [n] says how many belong to each. After an answer's last
token nothing more is earned, and the value is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(values: Tensor, rewards: Tensor, lengths: Tensor, gamma: float, lam: float) -> Tensor:
    """A_t = δ_t + γλ A_{t+1}, where δ_t = r_t + γ V_{t+1} − V_t."""
    surprises = rewards + gamma * following(values, lengths) - values
    return discounted(surprises, lengths, gamma * lam)


def discounted(x: Tensor, lengths: Tensor, factor: float) -> Tensor:
    """y_t = x_t + factor · y_{t+1} within each answer."""
    rows = torch.nn.utils.rnn.pad_sequence(list(x.split(lengths.tolist())), batch_first=True)
    sums, later = torch.empty_like(rows), rows.new_zeros(len(rows))
    for t in reversed(range(rows.shape[1])):
        later = rows[:, t] + factor * later
        sums[:, t] = later
    return sums[torch.arange(rows.shape[1], device=x.device) < lengths[:, None]]


def following(x: Tensor, lengths: Tensor) -> Tensor:
    """x_{t+1}, and 0 at each answer's last token."""
    shifted = torch.cat([x[1:], x.new_zeros(1)])
    shifted[lengths.cumsum(0) - 1] = 0
    return shifted


def whitened(x: Tensor) -> Tensor:
    """With mean 0 and variance 1 over all that is given."""
    return (x - x.mean()) * (x.var(correction=0) + 1e-8).rsqrt()
