"""Which kernels compute a run's output layer: on a GPU the fastest, timed before the first step and kept with the run.

Those are timed that are installed and can compute the model's layer; of them those may be taken whose log-probabilities
and derivatives are the plain operations', as far as rounding in the computations' precision goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Protocol

import torch
from torch import Tensor

from prospect.checkpoint.state import Position
from prospect.config.schema import Config, HeadKernel
from prospect.errors import MachineError, UserError
from prospect.logs import log
from prospect.model.adapter import output_weights
from prospect.model.head import Head
from prospect.model.policy import Policy
from prospect.model.score import ScorePolicy
from prospect.parallel import World

_POSITIONS = 4096  # trained tokens of a try: what a GPU's tile holds
_NEEDS = {HeadKernel.compiled: "triton", HeadKernel.cut: "cut_cross_entropy"}  # on a GPU


class Clock(Protocol):
    """Tells how long a device takes."""

    def seconds(self, run: Callable[[], object]) -> float:
        """Of one call; those before it, in which kernels are made, do not count."""
        ...


@dataclass(frozen=True, slots=True)
class CudaClock:
    """One GPU's own."""

    device: torch.device

    def seconds(self, run: Callable[[], object]) -> float:
        """Median of five, after two."""
        found = []
        for _ in range(7):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            end.synchronize()
            found.append(start.elapsed_time(end) / 1000)
        return float(median(found[2:]))


def settle_kernels(
    config: Config, policy: Policy, position: Position, world: World, clock: Clock | None = None
) -> None:
    """Give the policy's output layer its kernels: as configured, as the run has found them before, or found now.

    Raises:
        UserError: those that are configured cannot compute this model's layer.
        MachineError: they are not installed, or do not run here.
    """
    if isinstance(policy, ScorePolicy):
        return  # it has another output layer
    on_gpu, wanted = world.device.type == "cuda", config.model.head_kernel
    if wanted is not None:
        why = unfit(wanted, policy.head, precision(policy), on_gpu)
        if why is not None:
            raise why
        policy.head = replace(policy.head, kernel=wanted)
        return
    if not on_gpu and clock is None:
        return
    if position.head_kernel is None:
        clock = clock or CudaClock(world.device)
        position.head_kernel = world.from_main(fastest(policy, clock, on_gpu) if world.is_main else None)
    policy.head = replace(policy.head, kernel=HeadKernel(position.head_kernel or HeadKernel.torch))


def unfit(kernel: HeadKernel, head: Head, dtype: torch.dtype, on_gpu: bool) -> UserError | MachineError | None:
    """Why kernels cannot compute an output layer in ``dtype``, if they cannot."""
    _, bias = output_weights(head.linear)
    if kernel is HeadKernel.cut and (bias is not None or head.scale != 1.0 or dtype == torch.float32):
        return UserError("model.head_kernel: cut computes in bfloat16 only, no bias and no scale; leave it out")
    if kernel is HeadKernel.cut and not on_gpu:
        return MachineError("model.head_kernel: cut runs on a GPU only; leave it out")
    needed = _NEEDS.get(kernel) if on_gpu else None
    if needed is not None and find_spec(needed) is None:
        return MachineError(f"model.head_kernel: {kernel} needs {needed.replace('_', '-')}, which is not installed")
    return None


def precision(policy: Policy) -> torch.dtype:
    """What the output layer's products are computed in."""
    return policy.autocast or output_weights(policy.head.linear)[0].dtype


def fastest(policy: Policy, clock: Clock, on_gpu: bool) -> HeadKernel:
    """Of all that fit; says what it has measured."""
    head, dtype = replace(policy.head, accumulates=False), precision(policy)
    weight, _ = output_weights(head.linear)
    size = (_POSITIONS, weight.shape[1])
    noise = torch.Generator(weight.device).manual_seed(0)
    hidden = torch.randn(size, generator=noise, device=weight.device).requires_grad_()
    targets = torch.randint(len(weight), (_POSITIONS,), generator=noise, device=weight.device)
    tries = {
        kernel: partial(attempt, policy, replace(head, kernel=kernel), hidden, targets)
        for kernel in HeadKernel
        if unfit(kernel, head, dtype, on_gpu) is None
    }
    wanted, seconds = tries[HeadKernel.torch](), {}
    for kernel, run in tries.items():
        try:
            off = difference(run(), wanted)
        except Exception as error:  # of kernels that somebody else has written, anything
            log.warning("output layer: %s does not run here (%s)", kernel, str(error).splitlines()[0])
            continue
        if off > allowed(dtype):
            log.warning("output layer: %s is not used, it is off by %.1g", kernel, off)
            continue
        seconds[kernel] = clock.seconds(run)
    found = min(seconds, key=lambda kernel: seconds[kernel])
    said = ", ".join(f"{kernel} {1000 * s:.3g}" for kernel, s in seconds.items())
    log.info("output layer: %s (milliseconds a %d tokens: %s)", found, _POSITIONS, said)
    return found


def attempt(policy: Policy, head: Head, hidden: Tensor, targets: Tensor) -> list[Tensor]:
    """Log-probabilities and their derivatives, forward and backward once; no gradient is left."""
    weight, _ = output_weights(head.linear)
    leaves = [hidden, weight] if weight.requires_grad and weight.is_leaf else [hidden]
    with policy.precision():
        logps = head.logps(hidden, targets)
    signs = torch.arange(len(targets), device=hidden.device) % 2 * 2.0 - 1
    return [logps.detach(), *torch.autograd.grad((logps * signs).sum(), leaves)]


def difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest of all, relative."""
    pairs = zip(found, wanted, strict=True)
    return max(float((a - b).float().norm() / b.float().norm()) for a, b in pairs)


def allowed(dtype: torch.dtype) -> float:
    """What rounding explains: derivatives are summed up in the computations' precision, in another order."""
    return 1e-5 if dtype == torch.float32 else 1e-2
