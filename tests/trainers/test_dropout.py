"""Dropout in an adapter: which passes have it, and that those which belong together leave out the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import CheckpointError

from dataloaders.packing import counts
from prospect.batch import Logps, joined
from prospect.checkpoint.lineage import Base
from prospect.choice import Choice
from prospect.config.schema import PeftConfig
from prospect.model.adapter import put_on
from prospect.model.policy import Policy
from prospect.reference import LiveReference
from tests import tiny
from tests.planted import plant
from trainers.basic import BasicTrainer, Engine

PEFT = PeftConfig(r=4, dropout=0.3)


def made(folder: Path, loss: str, **changes: Any) -> tuple[BasicTrainer, Engine]:
    """A step whose policy is an adapter that has learned something, and whose reference is it with the adapter off."""
    config = tiny.config(folder, loss, **changes)
    trainer, engine = tiny.trainer_and_engine(config, live=True)
    adapter = put_on(engine.policy.model, PEFT, Base("base"))
    policy = replace(engine.policy, adapter=adapter, dropout=PEFT.dropout)
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    return trainer, replace(engine, policy=policy, reference=engine.reference and LiveReference(policy))


def step(trainer: BasicTrainer, engine: Engine) -> tuple[dict[str, float], torch.Tensor]:
    torch.manual_seed(3)
    return tiny.gradients(trainer, engine)


def at_once(trainer: BasicTrainer, engine: Engine) -> tuple[float, torch.Tensor]:
    """Loss and gradient of the same step by one pass over each micro-batch, all of them kept for the gradient."""
    torch.manual_seed(3)
    records = engine.data.step(0)
    (portion,) = trainer.work(records, 0, engine).portions
    batches = portion.batches
    assert len(batches) > 1
    assert engine.reference is not None
    policy = joined([engine.policy.outputs(batch) for batch in batches])
    reference = Logps.joined([engine.reference.logps(batch) for batch in batches])
    choice = Choice.of([role for batch in batches for role in batch.roles], policy)
    loss = trainer.mean(trainer.losses(policy, reference, choice, None), counts(records))
    found = torch.autograd.grad(loss, engine.policy.parameters())
    return loss.item(), torch.cat([x.reshape(-1) for x in found])


@pytest.mark.parametrize("loss", ["kto-simple", "aot"])
def test_both_passes_over_a_whole_batch_leave_out_the_same(loss: str, tmp_path: Path) -> None:
    trainer, engine = made(tmp_path, loss, tokens_per_microbatch=200)
    metrics, gradient = step(trainer, engine)
    value, wanted = at_once(trainer, engine)
    assert metrics["loss"] == pytest.approx(value, rel=1e-6)
    assert tiny.distance(gradient, wanted) < 1e-5


@pytest.mark.parametrize(
    ("old", "new"),
    [("self.rehearsing = True", "pass"), ("torch.random.fork_rng([self.device]", "nullcontext([self.device]")],
)
def test_planted_other_dropout_in_one_pass_is_seen(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, engine = made(tmp_path, "aot")
    plant(monkeypatch, Policy.rehearsal, old, new)
    assert tiny.distance(step(trainer, engine)[1], at_once(trainer, engine)[1]) > 1e-3


def test_recomputed_activations_have_their_dropout_whatever_came_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off() -> float:
        plain, again = (step(*made(tmp_path, "dpo", activation_checkpointing=on))[1] for on in (False, True))
        return tiny.distance(again, plain)

    assert off() < 1e-6
    plant(monkeypatch, Policy.hidden, "self.model.train()", "pass")  # as the reference's pass leaves it
    with pytest.raises(CheckpointError):
        off()


def test_evaluation_has_none(tmp_path: Path) -> None:
    trainer, engine = made(tmp_path, "aot")
    one, other = (trainer.step(engine.data.step(0), 0, engine, train=False).means() for _ in range(2))
    assert one == other
    assert engine.policy.model.training
