"""What a tile of logits goes through between its products: bias, scale, soft cap, log-softmax and its derivative.

d log p(y) / d z = onehot(y) − softmax(z). As a sequence of operations each reads and writes the tile anew, in place as
far as that can be; ``compiled``, they are a kernel after each product, which is where a GPU with a small model spends
its time in the output layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from prospect.model.products import product

BACKEND = "inductor"


@dataclass(frozen=True, slots=True)
class Shares:
    """Probabilities of a tile, as parts of a total: parts [n, V] / total [n, 1]."""

    parts: Tensor
    total: Tensor | None = None  # 1


@dataclass(frozen=True)
class Between:
    """How a model goes from products to logits. n positions, V tokens, H width; a tile is of float32, or float64."""

    scale: float = 1.0
    softcap: float | None = None

    def logits(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Of rows [n, H] and weight [V, H]; and their derivative by the products, where a soft cap makes it vary."""
        logits = product(rows, weight.T)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if bias is not None:
            logits += bias
        if self.scale != 1.0:
            logits *= self.scale
        if self.softcap is None:
            return logits, None
        squashed = torch.tanh_(logits / self.softcap)
        return squashed * self.softcap, 1 - squashed * squashed

    def logps(self, rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
        """log-probabilities of the targets [n], and log-normalizers [n]."""
        logits, _ = self.logits(rows, weight, bias)
        found, normalizers, _ = _normalized(logits, targets)
        return found, normalizers

    def logps_and_shares(
        self, rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, Tensor, Shares]:
        """The same, and what ``slopes_of`` needs in the place of a second product; not where there is a soft cap."""
        logits, _ = self.logits(rows, weight, bias)
        found, normalizers, total = _normalized(logits, targets)
        return found, normalizers, Shares(logits, total)

    def slopes_of(self, shares: Shares, targets: Tensor, given: Tensor) -> Tensor:
        """As ``slopes``; ``shares`` are consumed."""
        return self._by_products(shares, None, targets, given[:, None])

    def slopes(
        self, rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, normalizers: Tensor, given: Tensor
    ) -> Tensor:
        """A loss by the products [n, V], where ``given`` [n] is what it is by the log-probabilities."""
        logits, slope = self.logits(rows, weight, bias)
        shares = Shares(logits.sub_(normalizers[:, None]).exp_())
        return self._by_products(shares, slope, targets, given[:, None])

    def logps_and_slopes(
        self, rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, given: float
    ) -> tuple[Tensor, Tensor]:
        """Both from one product, where ``given`` is the same for all and known."""
        logits, slope = self.logits(rows, weight, bias)
        found, _, total = _normalized(logits, targets)
        return found, self._by_products(Shares(logits, total), slope, targets, torch.full_like(total, given))

    def _by_products(self, shares: Shares, slope: Tensor | None, targets: Tensor, given: Tensor) -> Tensor:
        """``shares`` are consumed; ``given`` [n, 1]."""
        d = shares.parts.mul_(-given if shares.total is None else -given / shares.total)
        d.scatter_add_(1, targets[:, None], given.to(d.dtype))
        if slope is not None:
            d *= slope
        if self.scale != 1.0:
            d *= self.scale
        return d


def _normalized(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log-probabilities of the targets [n], log-normalizers [n], and by what [n, 1] to divide the logits' remains.

    The logits' place holds their exponentials then, so that there is no second tile.
    """
    picked = logits.gather(1, targets[:, None]).squeeze(1)
    largest = logits.amax(-1, keepdim=True)
    total = logits.sub_(largest).exp_().sum(-1, keepdim=True)
    normalizers = (largest + total.log()).squeeze(1)
    return picked - normalizers, normalizers, total


class Compiled(Between):
    """The same, each from its product on as few kernels as the compiler makes of it, whatever the number of rows."""

    def logps(self, *tile: Any) -> tuple[Tensor, Tensor]:
        """As ``Between.logps``."""
        found: tuple[Tensor, Tensor] = _compiled(Between.logps)(self, *tile)
        return found

    def slopes(self, *tile: Any) -> Tensor:
        """As ``Between.slopes``."""
        found: Tensor = _compiled(Between.slopes)(self, *tile)
        return found

    def logps_and_slopes(self, *tile: Any) -> tuple[Tensor, Tensor]:
        """As ``Between.logps_and_slopes``."""
        found: tuple[Tensor, Tensor] = _compiled(Between.logps_and_slopes)(self, *tile)
        return found


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True, backend=BACKEND)
