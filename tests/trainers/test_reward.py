"""Bradley-Terry with margin and centering: closed forms, direction, and where the margin comes from."""

from __future__ import annotations

import json
import logging
from math import exp, log
from pathlib import Path
from typing import Any

import pytest
import torch

from prospect.batch import Scores
from prospect.config.schema import Config, DatasetConfig
from prospect.errors import UserError
from prospect.parallel import World
from tests import tiny
from tests.planted import plant
from trainers import make_trainer
from trainers.reward import RewardTrainer
from trainers.setup import prepare_data, prepare_text

CHOSEN, REJECTED = [1.5, -0.5, 0.25], [0.5, 1.0, -2.0]
GRADES = ([8.0, float("nan"), 3.0], [5.0, float("nan"), 3.5])


def trainer(**changes: Any) -> RewardTrainer:
    return RewardTrainer(Config(loss=RewardTrainer.Config(**changes)))


def scores(values: list[float], grades: list[float]) -> Scores:
    return Scores(torch.tensor(values), torch.tensor(grades, dtype=torch.float64))


def losses(**changes: Any) -> list[float]:
    found = trainer(**changes).loss(scores(CHOSEN, GRADES[0]), scores(REJECTED, GRADES[1])).losses
    return [float(x) for x in found]


def wanted(margins: list[float], center: float = 0.0) -> list[float]:
    rows = zip(CHOSEN, REJECTED, margins, strict=True)
    return [log(1 + exp(-(w - l - m))) + center * (w + l) ** 2 for w, l, m in rows]  # noqa: E741


@pytest.mark.parametrize(
    ("changes", "margins", "center"),
    [
        ({}, [0, 0, 0], 0),
        ({"margin": "0.5"}, [0.5, 0.5, 0.5], 0),
        ({"margin": "data"}, [3.0, 0, -0.5], 0),
        ({"center": 0.01}, [0, 0, 0], 0.01),
        ({"margin": "data", "center": 0.3}, [3.0, 0, -0.5], 0.3),
    ],
)
def test_closed_form(changes: dict[str, Any], margins: list[float], center: float) -> None:
    assert losses(**changes) == pytest.approx(wanted(margins, center), abs=1e-12)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("chosen - rejected - margin", "rejected - chosen - margin"),
        ("chosen - rejected - margin", "chosen - rejected + margin"),
        ("(chosen + rejected) ** 2", "(chosen - rejected) ** 2"),
    ],
)
def test_a_planted_bug_is_seen(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, RewardTrainer.loss, old, new)
    assert losses(margin="data", center=0.3) != pytest.approx(wanted([3.0, 0, -0.5], 0.3), abs=1e-3)


def test_direction_and_slopes() -> None:
    made = trainer(margin="1.0", center=0.05)
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (CHOSEN, REJECTED)]
    made.loss(*map(Scores, leaves)).losses.sum().backward()
    plain = trainer().loss(*map(Scores, leaves)).losses
    for grad, sign in zip(torch.autograd.grad(plain.sum(), leaves), (-1, 1), strict=True):
        assert (grad * sign > 0).all()
    assert torch.autograd.gradcheck(lambda a, b: made.loss(Scores(a), Scores(b)).losses, leaves)


def test_far_apart_stays_finite() -> None:
    made = trainer(center=0.01).loss(Scores(torch.tensor([-1e4])), Scores(torch.tensor([1e4])))
    assert made.losses.tolist() == pytest.approx([2e4])
    assert made.chosen_rewards is not None
    assert made.chosen_rewards.tolist() == [-1e4]


def with_scores(folder: Path, share: float) -> Config:
    """A run of loss=reward, margin=data, on pairs of which the first ``share`` have scores."""
    rows: list[dict[str, Any]] = list(tiny.pairs(40))
    for i, row in enumerate(rows):
        if i < share * len(rows):
            row |= {"score_chosen": 2.0 + i, "score_rejected": 0.5}
    file = folder / "graded.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tiny.config(folder, "reward")
    config.loss.margin = "data"
    config.datasets = {"graded": DatasetConfig(path=str(file), test_fraction=0.2)}
    return config


def test_scores_of_the_data_reach_the_loss(tmp_path: Path) -> None:
    trainer, engine = tiny.trainer_and_engine(with_scores(tmp_path, 1.0))
    records = engine.data.step(0)
    (batch,) = engine.data.microbatches(records[:2])
    assert batch.grades.tolist() == [x for record in records[:2] for x in record.scores]
    assert all(record.scores[1] == 0.5 for record in records)
    metrics, _ = tiny.gradients(trainer, engine)
    trainer.margin = 0.0  # type: ignore[attr-defined]
    assert metrics["loss"] > tiny.gradients(trainer, engine)[0]["loss"] + 1


def prepare(config: Config) -> None:
    trainer = make_trainer(config)
    trainer.prepare(prepare_data(config, trainer, prepare_text(config, None)), World())


def test_data_without_scores_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"loss\.margin: data, but no pair of graded has scores \(in files: score_ch"):
        prepare(with_scores(tmp_path, 0.0))
    (tmp_path / "some").mkdir()
    logging.getLogger("prospect").propagate = True
    with caplog.at_level(logging.INFO):
        prepare(with_scores(tmp_path / "some", 0.5))
    assert any("of 33 pairs, 0 for the others" in line for line in caplog.messages)


def test_what_is_no_margin_is_refused() -> None:
    with pytest.raises(UserError, match=r"loss\.margin: 'dta' is neither none nor data nor a number"):
        trainer(margin="dta")
