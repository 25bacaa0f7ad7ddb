"""The root of the trainer hierarchy: how one optimizer step's losses become gradients and metrics.

A trainer declares what it needs and implements ``loss``; everything else is done here, once for all losses. Only this
class divides, and it divides by a count taken from the data of the whole optimizer step, over micro-batches and
processes: gradients do not depend on packing, micro-batching, accumulation or world size.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from dataloaders.packing import Sequence, counts, rank_share
from dataloaders.records import RecordKind
from dataloaders.tokenization import Tokenized
from prospect.batch import Batch, Logps, Loss, Outputs, Over, Role, Term, joined
from prospect.choice import Choice
from prospect.config import schema
from prospect.logs import log
from prospect.metrics import PART, Tally
from trainers import mismatched
from trainers.guidance import Guidance
from trainers.mismatched import Forward, Mismatched, forward

if TYPE_CHECKING:  # a configuration is checked against the losses before anything heavy is imported
    from dataloaders.loader import Data
    from prospect.model.control import ControlTokens
    from prospect.model.policy import Policy
    from prospect.parallel import World
    from prospect.reference import Reference

ModelHead = Literal["tokens", "squares", "value", "score"]


@dataclass(frozen=True, slots=True)
class Engine:
    """What a trainer computes with."""

    policy: Policy
    reference: Reference | None
    data: Data
    world: World
    before_last_backward: Callable[[], None] = lambda: None  # of an update


@dataclass(frozen=True, slots=True)
class Portion:
    """What this process computes of some of a step's records: those with one reference point."""

    batches: list[Batch]  # on the host
    drawn: list[Sequence | None]  # for each of their records what the reference point is estimated on

    @classmethod
    def of(cls, batches: list[Batch], drawn: Seq[Sequence | None]) -> Portion:
        """The largest comes last, where computing begins: what follows it finds room where it was."""
        answers = sum(map(len, batches)) // max(len(drawn), 1)  # of a record
        rest, own = iter(drawn), []
        for batch in batches:
            own.append(list(islice(rest, len(batch) // answers)))
        order = sorted(range(len(batches)), key=lambda i: len(batches[i].input_ids))
        return cls([batches[i] for i in order], [item for i in order for item in own[i]])


@dataclass(frozen=True, slots=True)
class Work:
    """One optimizer step, made ready on the host: what of it follows from the data alone."""

    number: int
    records: Seq[Tokenized]  # of all processes
    count: dict[Over, int]
    portions: list[Portion]
    lacks_point: bool  # the loss needs mismatched answers, and there are none


class BasicTrainer:
    """Losses of one optimizer step, their gradients and metrics."""

    records: RecordKind
    head: ModelHead = "tokens"  # squares, value: Logps.squares or .values, too; score: Scores in the place of Logps
    needs_reference = False
    needs_mismatched = False  # loss also gets logps of answers to other prompts (KTO's reference point)
    scores_prompts = False  # Logps.prompts of chosen answers, too
    whole_batch = False  # loss must see the whole optimizer batch at once
    balanced = False  # as many chosen as rejected answers in every step
    mean_over = Over.records
    linear = False  # the loss is −Σ log π / count: its derivative by each token is known before the forward pass

    paper = ""  # where the formula stands
    formula = ""  # what is minimized, in the symbols of docs/losses.md
    flat_at_start: frozenset[Role] = frozenset()  # roles without a gradient while policy and reference are equal
    imitates_rejected = False  # rejected answers are to become likelier too: the prompt tells what they are
    rises_at_start = False  # the formula is not monotonic: there it rises with the margin
    guidance: ClassVar[Guidance | None] = None  # how much training its results took
    holds_still = False  # the loss has a statistic of the policy that carries no gradient

    Config: ClassVar[type[schema.LossConfig]] = schema.LossConfig  # hyperparameters: a dataclass inside the subclass

    def __init__(self, config: schema.Config) -> None:
        self.config = config  # the run's; the loss's own part is self.config.loss
        self.state: dict[str, float] = {}  # what a loss carries from step to step; kept in checkpoints
        self.weights: dict[str, float] = {}  # of answers, with the counts that decide them: for the run's record

    @property
    def control_tokens(self) -> ControlTokens | None:
        """Tokens that tell the model, after the prompt, which kind of answer follows; None: the loss has none."""
        return None

    def learn_counts(self, desirable: int, undesirable: int) -> None:
        """Learn how many desirable and undesirable records an epoch of the training data has."""

    def loss(self, *args: Any, **kwargs: Any) -> Loss:
        """Un-reduced losses from log-probabilities; see the subclasses for the arguments."""
        raise NotImplementedError

    @property
    def updates(self) -> int:
        """How many optimizer updates are made on each batch."""
        return 1

    def prepare(self, data: Data, world: World) -> Data:
        """What must be known before the first step: checks the data, or returns them with more."""
        return data

    def losses(self, policy: Outputs, reference: Logps | None, choice: Choice, kl: Mismatched | None) -> Loss:
        """Call ``loss`` with what this kind of trainer gives it."""
        return self.loss(policy)

    def at_start(self) -> dict[str, float]:
        """Metrics that are known while the policy still is the reference model; checked when a run begins."""
        return {}

    def settle(self, loss: Loss) -> None:
        """Take over into ``state`` what a whole-batch loss of a training step has found."""

    def step(self, records: Seq[Tokenized], number: int, engine: Engine, train: bool, update: int = 0) -> Tally:
        """``compute`` on ``records``."""
        return self.compute(self.work(records, number, engine), engine, train, update)

    def work(self, records: Seq[Tokenized], number: int, engine: Engine) -> Work:
        """What this process will compute of all ``records`` of a step. Changes nothing: any thread may ask, early."""
        count = counts(records)
        others = self.mismatches(engine.data, records, number) if self.needs_mismatched else [None] * len(records)
        portions, at = [], 0
        for part in self.scopes(records):
            portions.append(self._portion(part, others[at : at + len(part)], engine))
            at += len(part)
        return Work(number, records, count, portions, self.needs_mismatched and not any(others))

    def _portion(self, records: Seq[Tokenized], others: Seq[Sequence | None], engine: Engine) -> Portion:
        world, share = engine.world, engine.policy.shares_prompts
        mine = rank_share(records, world.rank, world.size, share)
        batches = engine.data.microbatches([records[i] for i in mine], share, self.scores_prompts)
        if engine.policy.device.type == "cuda":
            batches = [batch.pinned() for batch in batches]
        return Portion.of(batches, [others[i] for i in mine])

    def compute(self, work: Work, engine: Engine, train: bool, update: int = 0) -> Tally:
        """Metrics of one optimizer step, as far as this process computes them.

        With ``train`` this process's part of the gradients of Σ losses / count is added to the parameters; ``update``
        counts those made on these records before.
        """
        if work.lacks_point:
            log.warning("step %d: all its answers belong to one prompt; the reference point is 0", work.number)
        parts = work.portions
        return Tally.joined([self._pass(part, work.count, engine, train, part is parts[-1]) for part in parts])

    def scopes(self, records: Seq[Tokenized]) -> list[Seq[Tokenized]]:
        """The records of a step, in groups that have a reference point of their own; one, but for compatibility."""
        return [records]

    def mismatches(self, data: Data, records: Seq[Tokenized], number: int) -> list[Sequence | None]:
        """For each record of a step what the reference point is estimated on, as ``Data.mismatches`` gives it."""
        return data.mismatches(records, number)

    def draw(self, data: Data) -> Callable[[Seq[Tokenized], int], list[Sequence | None]] | None:
        """``mismatches`` on these data, where the loss needs any."""
        return partial(self.mismatches, data) if self.needs_mismatched else None

    def _pass(self, part: Portion, count: dict[Over, int], engine: Engine, train: bool, last: bool) -> Tally:
        device, drawn = engine.policy.device, part.drawn
        batches = [batch.to(device) for batch in part.batches]
        if self.whole_batch:
            kl = mismatched.compute_whole(drawn, engine) if self.needs_mismatched else None
            return self._whole_batch(batches, count, engine, kl, train, last)
        tally, kl, ready = Tally(), None, None
        if self.needs_mismatched:
            kl, ready = mismatched.compute(drawn, batches, engine, train)
        known = -1 / max(count[self.mean_over], 1) if self.linear and train else None
        choices = [Choice.of(batch.roles, batch).to(device) for batch in part.batches]
        for batch, choice in zip(reversed(batches), reversed(choices), strict=True):
            if train and last and batch is batches[0]:
                engine.before_last_backward()
            with torch.set_grad_enabled(train):
                policy, reference = ready or _forward(batch, engine, known)
                ready = None
                loss = self.losses(policy, reference, choice, kl)
                if train:
                    self.mean(loss, count).backward()
            self._tally(tally, loss, policy, reference, choice)
            del policy, loss  # their graph would lie between the next one's tensors, and holes that nothing fits in
        return tally

    def mean(self, loss: Loss, count: dict[Over, int]) -> Tensor:
        """This process's share of the loss of the whole optimizer batch; a count of 0 has no values."""
        parts = [Term(loss.losses, self.mean_over), *loss.terms.values()]
        return sum((part.values.sum() / max(count[part.over], 1) for part in parts), start=torch.zeros(()))

    def _whole_batch(
        self,
        batches: list[Batch],
        count: dict[Over, int],
        engine: Engine,
        kl: Mismatched | None,
        train: bool,
        last: bool,
    ) -> Tally:
        """Two passes: all log-probabilities, the loss once on them, and its derivative by each drives the second."""
        world, cpu = engine.world, torch.device("cpu")
        with torch.no_grad():
            with engine.policy.rehearsal() if train else nullcontext():
                policies = [engine.policy.outputs(batch).to(cpu) for batch in batches]
            references = [engine.reference.logps(b).to(cpu) for b in batches] if engine.reference is not None else []
        parts = world.gather((policies, references, [batch.roles for batch in batches]))
        policy = joined([x for part in parts for x in part[0]])
        reference = Logps.joined([x for part in parts for x in part[1]]) if engine.reference is not None else None
        choice = Choice.of([role for part in parts for roles in part[2] for role in roles], policy)
        leaves = [leaf.requires_grad_(train) for leaf in policy.leaves()]
        loss = self.losses(policy, reference, choice, kl)
        if train:
            coefficients = torch.autograd.grad(self.mean(loss, count), leaves, materialize_grads=True)
            at = sum(len(x.leaves()[0]) for part in parts[: world.rank] for x in part[0])
            for batch, first in zip(batches, policies, strict=True):
                size = len(first.leaves()[0])
                own = [x[at : at + size].to(engine.policy.device) for x in coefficients]
                at += size
                if last and batch is batches[-1]:
                    engine.before_last_backward()
                torch.autograd.backward(engine.policy.outputs(batch).leaves(), own)
            self.settle(loss)
        tally = Tally()
        if world.is_main:  # these numbers are everybody's
            self._tally(tally, loss, policy, reference, choice)
        return tally

    def _tally(self, tally: Tally, loss: Loss, policy: Outputs, reference: Logps | None, choice: Choice) -> None:
        count: dict[Over, int] = {}
        if isinstance(policy, Logps):
            count = {Over.tokens: len(policy.tokens), Over.chosen_tokens: len(choice.chosen.tokens)}
            if choice.chosen.prompts is not None:
                count[Over.chosen_and_prompts] = len(choice.chosen.tokens) + len(choice.chosen.prompts.tokens)
            for name, answers in (("logps/chosen", choice.chosen), ("logps/rejected", choice.rejected)):
                tally.add(name, policy.sums.index_select(0, answers.which))
            if reference is not None:
                tally.add("approx_kl", (policy.tokens - reference.tokens).double().square() / 2)
        main = f"{PART}{self.config.loss.name}" if loss.terms else "loss"
        for name, term in {main: Term(loss.losses, self.mean_over), **_named(loss.terms)}.items():
            tally.add(name, term.values, None if term.over is Over.records else count[term.over])
        if loss.chosen_rewards is not None and loss.rejected_rewards is not None:
            tally.rewards(loss.chosen_rewards, loss.rejected_rewards, self.records is RecordKind.pairs)
        for name, values in loss.metrics.items():
            tally.add(name, values)


def preference_arguments(
    policy: Outputs, reference: Logps | None, choice: Choice, kl: Mismatched | None
) -> list[Outputs]:
    """(policy_chosen, policy_rejected[, reference_chosen, reference_rejected][, policy_kl[, reference_kl]])."""
    models: list[Outputs] = [policy] if reference is None else [policy, reference]
    return [model.select(one) for model in models for one in (choice.chosen, choice.rejected)] + list(kl or ())


def _forward(batch: Batch, engine: Engine, known: float | None) -> Forward:
    """``known``: of a loss that is linear, and needs no reference."""
    return forward(batch, engine) if known is None else (engine.policy.logps(batch, known=known), None)


def _named(terms: dict[str, Term]) -> dict[str, Term]:
    return {f"{PART}{name}": term for name, term in terms.items()}
