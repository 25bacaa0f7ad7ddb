"""The root of the trainer hierarchy: how one optimizer step's losses become gradients and metrics.

A trainer declares what it needs and implements ``loss``; everything else is done here, once for all losses. Only this
class divides, and it divides by a count taken from the data of the whole optimizer step, over micro-batches and
processes: gradients do not depend on packing, micro-batching, accumulation or world size.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from dataloaders.packing import Sequence, rank_share, trained_tokens
from dataloaders.records import RecordKind
from dataloaders.tokenization import Tokenized
from prospect.batch import Batch, Logps, Loss, Role
from prospect.config import schema
from prospect.logs import log
from prospect.metrics import Tally

if TYPE_CHECKING:  # a configuration is checked against the losses before anything heavy is imported
    from dataloaders.loader import Data
    from prospect.model.policy import Policy
    from prospect.parallel import World
    from prospect.reference import Reference


@dataclass(frozen=True, slots=True)
class Engine:
    """What a trainer computes with."""

    policy: Policy
    reference: Reference | None
    data: Data
    world: World


class BasicTrainer:
    """Losses of one optimizer step, their gradients and metrics."""

    records: ClassVar[RecordKind]
    needs_reference: ClassVar[bool] = False
    needs_mismatched: ClassVar[bool] = False  # loss also gets logps of answers to other prompts (KTO's reference point)
    whole_batch: ClassVar[bool] = False  # loss must see the whole optimizer batch at once
    balanced: ClassVar[bool] = False  # as many chosen as rejected answers in every step
    mean_over: ClassVar[Literal["records", "tokens"]] = "records"
    at_start: ClassVar[dict[str, float]] = {}  # metrics while the policy still is the reference model

    Config: ClassVar[type[schema.LossConfig]] = schema.LossConfig  # hyperparameters: a dataclass inside the subclass

    def __init__(self, config: schema.Config) -> None:
        self.config = config  # the run's; the loss's own part is self.config.loss

    def loss(self, *args: Any, **kwargs: Any) -> Loss:
        """Un-reduced losses from log-probabilities; see the subclasses for the arguments."""
        raise NotImplementedError

    def losses(self, policy: Logps, reference: Logps | None, chosen: Tensor, kl: tuple[Logps, Logps] | None) -> Loss:
        """Call ``loss`` with what this kind of trainer gives it; ``chosen`` [n] bool."""
        return self.loss(policy)

    def step(self, records: Seq[Tokenized], number: int, engine: Engine, train: bool) -> Tally:
        """Metrics of all ``records`` of one optimizer step, as far as this process computes them.

        With ``train`` this process's part of the gradients of Σ losses / count is added to the parameters.
        """
        data, world = engine.data, engine.world
        mine = rank_share(records, world.rank, world.size)
        count = len(records) if self.mean_over == "records" else sum(map(trained_tokens, records))
        kl = self._mismatched(records, mine, number, engine) if self.needs_mismatched else None
        batches = [b.to(engine.policy.device) for b in data.microbatches([records[i] for i in mine])]
        if self.whole_batch:
            return self._whole_batch(batches, count, engine, kl, train)
        tally = Tally()
        for batch in batches:
            with torch.set_grad_enabled(train):
                policy = engine.policy.logps(batch)
                reference = engine.reference.logps(batch) if engine.reference is not None else None
                chosen = _chosen(batch.roles, policy.tokens.device)
                loss = self.losses(policy, reference, chosen, kl)
                if train:
                    (loss.losses.sum() / count).backward()
            self._tally(tally, loss, policy, chosen, kl)
        return tally

    def _whole_batch(
        self, batches: list[Batch], count: int, engine: Engine, kl: tuple[Logps, Logps] | None, train: bool
    ) -> Tally:
        """Two passes: all log-probabilities, the loss once on them, and its derivative by each drives the second."""
        world, cpu = engine.world, torch.device("cpu")
        with torch.no_grad():
            policies = [engine.policy.logps(batch).to(cpu) for batch in batches]
            references = [engine.reference.logps(b).to(cpu) for b in batches] if engine.reference is not None else []
        parts = world.gather((policies, references, [batch.roles for batch in batches]))
        policy = Logps.joined([x for part in parts for x in part[0]])
        reference = Logps.joined([x for part in parts for x in part[1]]) if engine.reference is not None else None
        chosen = _chosen([role for part in parts for roles in part[2] for role in roles], cpu)
        policy.tokens.requires_grad_(train)
        loss = self.losses(policy, reference, chosen, kl)
        if train:
            (coefficients,) = torch.autograd.grad(loss.losses.sum() / count, policy.tokens)
            at = sum(len(x.tokens) for part in parts[: world.rank] for x in part[0])
            for batch, first in zip(batches, policies, strict=True):
                own = coefficients[at : at + len(first.tokens)].to(engine.policy.device)
                at += len(first.tokens)
                (engine.policy.logps(batch).tokens * own).sum().backward()
        tally = Tally()
        if world.is_main:  # these numbers are everybody's
            self._tally(tally, loss, policy, chosen, kl)
        return tally

    def _mismatched(self, records: Seq[Tokenized], mine: Seq[int], number: int, engine: Engine) -> tuple[Logps, Logps]:
        """Policy and reference logps of all processes' mismatched answers, without gradients."""
        assert engine.reference is not None
        data, device = engine.data, engine.policy.device
        everyone = data.mismatches(records, number)
        own: list[Sequence] = [item for i in mine if (item := everyone[i]) is not None]
        if not any(everyone):
            log.warning("step %d: all its answers belong to one prompt; the reference point is 0", number)
        with torch.no_grad():
            batches = [b.to(device) for b in data.packed(own)]
            policy = [engine.policy.logps(b).to(torch.device("cpu")) for b in batches]
            reference = [engine.reference.logps(b).to(torch.device("cpu")) for b in batches]
        parts = engine.world.gather((policy, reference))
        both = [[x for part in parts for x in part[side]] for side in (0, 1)]
        first, second = (Logps.joined(side or [_NONE]).to(device) for side in both)
        return first, second

    def _tally(self, tally: Tally, loss: Loss, policy: Logps, chosen: Tensor, kl: tuple[Logps, Logps] | None) -> None:
        tally.add("loss", loss.losses, float(policy.lengths.sum()) if self.mean_over == "tokens" else None)
        sums = policy.sums
        tally.add("logps/chosen", sums[chosen])
        if not chosen.all():
            tally.add("logps/rejected", sums[~chosen])
        if loss.chosen_rewards is not None and loss.rejected_rewards is not None:
            tally.rewards(loss.chosen_rewards, loss.rejected_rewards, self.records is RecordKind.pairs)
        for name, values in (loss.metrics or {}).items():
            tally.add(name, values)


def preference_arguments(
    policy: Logps, reference: Logps | None, chosen: Tensor, kl: tuple[Logps, Logps] | None
) -> list[Logps]:
    """(policy_chosen, policy_rejected[, reference_chosen, reference_rejected][, policy_kl, reference_kl])."""
    models = [policy] if reference is None else [policy, reference]
    return [model.select(which) for model in models for which in (chosen, ~chosen)] + list(kl or ())


def _chosen(roles: Seq[Role], device: torch.device) -> Tensor:
    return torch.tensor([role is Role.chosen for role in roles], device=device)


_NONE = Logps(torch.empty(0), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
