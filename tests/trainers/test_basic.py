"""What only BasicTrainer does: dividing. One step is the same however its records are cut into micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dataloaders.packing import length
from prospect.batch import Logps, Over
from prospect.choice import Answers
from prospect.model import head
from prospect.model.between import Between
from prospect.reference import CachedReference
from tests import tiny
from tests.planted import plant
from trainers import TRAINERS, mismatched
from trainers.basic import BasicTrainer, Engine, Portion

Made = tuple[BasicTrainer, Engine]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Trainer and engine of a loss, made once."""
    folder, cache = tmp_path_factory.mktemp("basic"), {}

    def make(loss: str) -> Made:
        if loss not in cache:
            cache[loss] = tiny.trainer_and_engine(tiny.config(folder, loss))
        trainer, engine = cache[loss]
        engine.data.config.model.tokens_per_microbatch = 10**6
        engine.data.config.model.gradient_accumulation_steps = 1
        return trainer, engine

    return make


CUTS: dict[str, dict[str, Any]] = {
    "one record a micro-batch": {"tokens_per_microbatch": 1},
    "some": {"tokens_per_microbatch": 150},
    "accumulation 2": {"gradient_accumulation_steps": 2},
    "accumulation 5": {"gradient_accumulation_steps": 5},
    "accumulation beyond the records": {"gradient_accumulation_steps": 100},
}


def difference(made: Made, cut: dict[str, Any]) -> tuple[float, float]:
    """Of any metric, and of the gradient relative to its size, between one micro-batch and several."""
    trainer, engine = made
    wanted, wanted_gradient = tiny.gradients(trainer, engine)
    for key, value in cut.items():
        setattr(engine.data.config.model, key, value)
    assert len(engine.data.microbatches(engine.data.step(0), share=True)) > 1
    metrics, gradient = tiny.gradients(trainer, engine)
    assert metrics.keys() == wanted.keys()
    # over the metric's size: rewards are sums of logps of about -100
    worst = max(abs(metrics[name] - wanted[name]) / max(1, abs(wanted[name])) for name in wanted)
    return worst, tiny.distance(gradient, wanted_gradient)


@pytest.mark.parametrize("loss", tiny.LOSSES)
def test_micro_batches_change_no_loss(made: Callable[[str], Made], loss: str) -> None:
    metric, gradient = difference(made(loss), CUTS["accumulation 5"])
    assert metric <= 1e-6
    assert gradient <= 1e-5


def unlike_apart(made: Made, budget: int = 10**6) -> tuple[float, float]:
    """As ``difference``, between answers that share their prompt and answers with a prompt each."""
    trainer, engine = made
    engine.data.config.model.tokens_per_microbatch = budget
    metrics, gradient = tiny.gradients(trainer, engine)
    try:
        engine.policy.share_prompts = False
        wanted, wanted_gradient = tiny.gradients(trainer, engine)
    finally:
        engine.policy.share_prompts = True
    worst = max(abs(metrics[name] - wanted[name]) / max(1, abs(wanted[name])) for name in wanted)
    return worst, tiny.distance(gradient, wanted_gradient)


def drawn_for(made: Made) -> tuple[list[int], dict[str, str | None]]:
    """Sizes of a step's micro-batches in their order, and for each record the mismatched answer that comes with it."""
    trainer, engine = made
    engine.data.config.model.tokens_per_microbatch = 150
    (portion,) = trainer.work(engine.data.step(0), 0, engine).portions
    records = [name for batch in portion.batches for name in batch.ids]
    found = {name: None if item is None else item.id for name, item in zip(records, portion.drawn, strict=True)}
    return [len(batch.input_ids) for batch in portion.batches], found


def test_the_largest_micro_batch_comes_first_with_the_answers_drawn_for_it(
    made: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, engine = made("kto")
    records = engine.data.step(0)
    others = trainer.mismatches(engine.data, records, 0)
    wanted = {record.id: None if item is None else item.id for record, item in zip(records, others, strict=True)}
    sizes, found = drawn_for((trainer, engine))
    assert sizes == sorted(sizes)  # computed from the last on
    assert sizes[0] < sizes[-1]
    assert found == wanted
    plant(monkeypatch, Portion.of, "for i in order for item in own[i]", "for some in own for item in some")
    assert drawn_for((trainer, engine))[1] != wanted


@pytest.mark.parametrize("loss", tiny.LOSSES)
def test_sharing_prompts_changes_no_loss(made: Callable[[str], Made], loss: str) -> None:
    metric, gradient = unlike_apart(made(loss))
    assert metric <= 1e-6
    assert gradient <= 1e-5


@pytest.mark.parametrize("live", [True, False])
def test_mismatched_answers_over_lent_prompts(live: bool, tmp_path: Path) -> None:
    one = tiny.trainer_and_engine(tiny.config(tmp_path, "kto"), live=live)
    assert tiny.gradients(*one)[0]["kl"] > 0.01
    for budget in (10**6, 300):  # one micro-batch, several
        metric, gradient = unlike_apart(one, budget)
        assert metric <= 1e-6
        assert gradient <= 1e-5


def test_planted_bug_in_lent_prompts_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, mismatched.compute, "[*whole(rest, engine), *found]", "found")
    assert unlike_apart(tiny.trainer_and_engine(tiny.config(tmp_path, "kto"), live=True), 300)[0] > 1e-4


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("loss", tiny.WAYS)
def test_micro_batches_change_nothing(made: Callable[[str], Made], loss: str, cut: str) -> None:
    metric, gradient = difference(made(loss), CUTS[cut])
    assert metric <= 1e-6
    assert gradient <= 1e-5


@pytest.mark.parametrize("loss", tiny.WAYS)
def test_micro_batches_change_nothing_in_float64(tmp_path: Path, loss: str) -> None:
    made = tiny.trainer_and_engine(tiny.config(tmp_path, loss), live=True, double=True)
    metric, gradient = difference(made, {"tokens_per_microbatch": 1})
    # transformers' norms and rotations round to float32 even in a float64 model
    assert metric <= 1e-8
    assert gradient <= 1e-7


@pytest.mark.parametrize(
    "loss", [loss for loss in tiny.LOSSES if not TRAINERS[tiny.YAMLS[loss]["trainer"]].needs_mismatched]
)
def test_order_of_records_changes_nothing(made: Callable[[str], Made], loss: str) -> None:
    """KTO draws its mismatched answers by a record's place in the step, and is left out."""
    trainer, engine = made(loss)
    wanted, wanted_gradient = tiny.gradients(trainer, engine)
    metrics, gradient = tiny.gradients(trainer, engine, change=lambda records: records[::-1])
    assert metrics == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    assert tiny.distance(gradient, wanted_gradient) <= 1e-5


@pytest.mark.parametrize("loss", ["dpo", "kto", "kto-simple", "ppo"])
def test_cached_reference_equals_live_one(made: Callable[[str], Made], tmp_path: Path, loss: str) -> None:
    metrics, gradient = tiny.gradients(*made(loss))
    wanted, wanted_gradient = tiny.gradients(*tiny.trainer_and_engine(tiny.config(tmp_path, loss), live=True))
    assert metrics == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    assert tiny.distance(gradient, wanted_gradient) <= 1e-5


def test_planted_values_of_other_answers_are_seen(made: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch) -> None:
    _, wanted = tiny.gradients(*made("dpo"))
    plant(monkeypatch, CachedReference.logps, "self.store.look_up(batch.keys)", "self.store.look_up(batch.keys)[::-1]")
    assert tiny.distance(tiny.gradients(*made("dpo"))[1], wanted) > 1e-3


@pytest.mark.parametrize(
    ("loss", "mean"),
    [
        ("sft", "(loss.losses.sum() / policy.lengths.sum() / len(batches))"),
        ("dpo", "(loss.losses.mean() / len(batches))"),
        ("kto", "(loss.losses.mean() / len(batches))"),
        (
            "orpo",
            "(loss.losses.mean() + loss.terms['sft'].values.sum() / len(choice.chosen.tokens)) / len(batches)",
        ),
    ],
)
def test_planted_mean_of_means_is_seen(
    made: Callable[[str], Made], loss: str, mean: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made(loss)[0], "linear", False)  # it would be refused at once
    plant(monkeypatch, BasicTrainer._pass, "self.mean(loss, count)", f"({mean})")
    sizes = [length(record, share=True) for record in made(loss)[1].data.step(0)]
    last_alone = {"tokens_per_microbatch": sum(sizes) - sizes[-1]}
    assert difference(made(loss), last_alone)[1] > 1e-2


LINEAR = [loss for loss in tiny.LOSSES if TRAINERS[tiny.YAMLS[loss]["trainer"]].linear]


@pytest.mark.parametrize("loss", LINEAR)
def test_weights_known_beforehand_give_the_gradient_of_the_plain_path(
    made: Callable[[str], Made], loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, engine = made(loss)
    engine.data.config.model.tokens_per_microbatch = 150
    metrics, gradient = tiny.gradients(trainer, engine)
    monkeypatch.setattr(trainer, "linear", False)
    wanted, wanted_gradient = tiny.gradients(trainer, engine)
    assert metrics == pytest.approx(wanted, rel=1e-6)
    assert tiny.distance(gradient, wanted_gradient) <= 1e-5


def test_weights_that_the_loss_does_not_have_are_refused(
    made: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LINEAR == ["csft", "pt", "sft"]
    plant(monkeypatch, BasicTrainer._pass, "-1 / max(", "-2 / max(")
    with pytest.raises(RuntimeError, match="not linear"):
        tiny.gradients(*made("sft"))


def test_planted_count_of_records_instead_of_tokens_is_seen(
    made: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, engine = made("sft")
    _, gradient = tiny.gradients(trainer, engine)
    monkeypatch.setattr(trainer, "mean_over", Over.records)
    assert tiny.distance(tiny.gradients(trainer, engine)[1], gradient) > 1


@pytest.mark.parametrize("loss", ["kto-simple", "ppo"])
def test_planted_statistic_of_each_micro_batch_is_seen(
    made: Callable[[str], Made], loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SimpleKTO's reference point and PPO's whitening would be without their pass over the whole batch."""
    monkeypatch.setattr(made(loss)[0], "whole_batch", False)
    metric, gradient = difference(made(loss), {"tokens_per_microbatch": 1})
    assert metric > 1e-3
    assert gradient > 1e-3


def _first(found: Logps, count: int) -> Logps:
    return found.select(Answers.of([i < count for i in range(len(found))], found.lengths))


def test_planted_kl_of_each_micro_batch_is_seen(made: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Logps, "first", _first, raising=False)
    plant(
        monkeypatch,
        BasicTrainer._pass,
        "policy, reference, choice, kl)\n",
        "policy, reference, choice, tuple(x.first(len(batch)) for x in kl))\n",
    )
    metric, gradient = difference(made("kto"), {"tokens_per_microbatch": 1})
    assert metric > 1e-3
    assert gradient > 1e-3


@pytest.mark.parametrize("loss", ["kto-simple", "ppo"])
def test_planted_coefficients_of_other_answers_are_seen(
    made: Callable[[str], Made], loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second pass of a whole-batch loss must give the gradient of the plain one."""
    trainer, engine = made(loss)
    _, wanted = tiny.gradients(trainer, engine)
    plant(monkeypatch, BasicTrainer._whole_batch, "at += size", "at += 0")
    engine.data.config.model.tokens_per_microbatch = 1
    assert tiny.distance(tiny.gradients(trainer, engine)[1], wanted) > 1e-3


@pytest.mark.parametrize("loss", ["kto-simple", "ppo"])
def test_whole_batch_gives_the_gradient_of_one_plain_pass(
    made: Callable[[str], Made], loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, engine = made(loss)
    metrics, gradient = tiny.gradients(trainer, engine)
    monkeypatch.setattr(trainer, "whole_batch", False)
    wanted, wanted_gradient = tiny.gradients(trainer, engine)  # all records are one micro-batch
    assert metrics == pytest.approx(wanted, abs=1e-7)
    assert tiny.distance(gradient, wanted_gradient) <= 1e-5


def test_planted_second_pass_without_the_values_is_seen(
    made: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, engine = made("ppo")
    size = [p.numel() for p in engine.policy.parameters()]
    wanted = tiny.gradients(trainer, engine)[1].split(size)
    assert all(float(x.norm()) > 0 for x in wanted[-2:])  # the value head's
    plant(
        monkeypatch,
        BasicTrainer._whole_batch,
        "engine.policy.outputs(batch).leaves(), own)",
        "engine.policy.outputs(batch).leaves()[:1], own[:1])",
    )
    tiny.gradients(trainer, engine)
    assert engine.policy.value_head is not None
    assert all(p.grad is None for p in engine.policy.value_head.parameters())


@pytest.mark.parametrize("loss", tiny.WAYS)
def test_evaluation_leaves_no_gradient(made: Callable[[str], Made], loss: str) -> None:
    trainer, engine = made(loss)
    for p in engine.policy.parameters():
        p.grad = None
    tally = trainer.step(engine.data.step(0), 0, engine, train=False)
    assert all(p.grad is None for p in engine.policy.parameters())
    assert tally.means() == pytest.approx(tiny.gradients(trainer, engine)[0], abs=1e-12)


@pytest.mark.parametrize(("kept", "times"), [(0, 2), (2**20, 1)])
def test_head_is_the_only_place_with_logits_of_the_vocabulary(
    made: Callable[[str], Made], kept: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step never computes logits at the prompt's positions; at the others again where they were not kept."""
    monkeypatch.setitem(head._KEPT, "cpu", kept)
    trainer, engine = made("dpo")
    seen: list[int] = []
    original = Between.logits

    def counted(self, hidden, weight, bias):
        seen.append(len(hidden))
        return original(self, hidden, weight, bias)

    monkeypatch.setattr(Between, "logits", counted)
    tiny.gradients(trainer, engine)
    trained = sum(int(batch.lengths.sum()) for batch in engine.data.microbatches(engine.data.step(0)))
    assert sum(seen) == times * trained


def test_gradient_is_the_slope_of_the_loss(tmp_path: Path) -> None:
    trainer, engine = tiny.trainer_and_engine(tiny.config(tmp_path, "dpo"), live=True, double=True)
    _, gradient = tiny.gradients(trainer, engine)
    size, step, losses = float(gradient.norm()), 1e-4, []
    for move in (step, -2 * step):  # one step up the slope, then one step down from where it began
        with torch.no_grad():
            parts = gradient.split([p.numel() for p in engine.policy.model.parameters()])
            for p, part in zip(engine.policy.model.parameters(), parts, strict=True):
                p.add_(part.view_as(p), alpha=move / size)
        losses.append(tiny.gradients(trainer, engine)[0]["loss"])
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(size, rel=1e-4)
