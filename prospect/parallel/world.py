"""The processes of a run. Everything that crosses between them goes through here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_BUCKET = 64 * 2**20  # bytes of gradient sent at once
_TIMEOUT = timedelta(minutes=60)  # other processes may wait while one reads or saves
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """This process's place among all of a run's."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[World]:
        """Join the process group that the environment names (RANK, WORLD_SIZE, LOCAL_RANK), if it names one."""
        rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        device = torch.device("cpu")
        if torch.cuda.is_available():
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(device)
        if size == 1:
            yield cls(device=device)
            return
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
        yield cls(rank, size, device)
        # Not after an error: it would break the others' waiting before this process has said what is wrong.
        dist.destroy_process_group()

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            dist.barrier()

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all processes, in float64."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return [float(x) for x in tensor.tolist()]

    def gather(self, item: T) -> list[T]:
        """Everybody's item, by rank, on every process."""
        if self.size == 1:
            return [item]
        items: list[T | None] = [None] * self.size
        dist.all_gather_object(items, item)
        return [x for x in items if x is not None]

    def from_main(self, item: T) -> T:
        """The main process's item, on every process."""
        if self.size == 1:
            return item
        box = [item]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Sum ``.grad`` over all processes, in buckets; a process without a gradient adds zeros."""
        if self.size == 1:
            return
        for bucket in _buckets(parameters):
            for p in bucket:
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
            flat = torch.cat([p.grad.reshape(-1) for p in bucket if p.grad is not None])
            dist.all_reduce(flat)
            at = 0
            for p in bucket:
                assert p.grad is not None
                p.grad.copy_(flat[at : at + p.numel()].view_as(p.grad))
                at += p.numel()


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for p in parameters:
        if bucket and (p.dtype != bucket[0].dtype or size + p.nbytes > _BUCKET):
            yield bucket
            bucket, size = [], 0
        bucket.append(p)
        size += p.nbytes
    if bucket:
        yield bucket
