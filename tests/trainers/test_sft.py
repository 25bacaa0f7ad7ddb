"""SFT: the mean over all trained tokens of the optimizer batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from prospect.config.schema import Config
from tests import tiny
from tests.trainers.logps import logps
from trainers.sft import SFTTrainer


def test_closed_form() -> None:
    loss = SFTTrainer(Config(loss=SFTTrainer.Config())).loss(logps([-1.0, -2.0], [-0.5]))
    assert loss.losses.tolist() == [3.0, 0.5]
    assert loss.chosen_rewards is None


def test_a_long_and_a_short_answer_weigh_by_their_tokens(tmp_path: Path) -> None:
    trainer, engine = tiny.trainer_and_engine(tiny.config(tmp_path))
    records = sorted((r for n in range(4) for r in engine.data.step(n)), key=lambda r: len(r.answer_ids[0]))
    pair = [records[0], records[-1]]
    assert len(pair[1].answer_ids[0]) > 10 * len(pair[0].answer_ids[0])
    (batch,) = engine.data.microbatches(pair)
    tokens = engine.policy.logps(batch).tokens
    metrics, _ = tiny.gradients(trainer, engine, change=lambda _: pair)
    assert metrics["loss"] == pytest.approx(float(-tokens.double().mean()), abs=1e-6)
    assert metrics["logps/chosen"] == pytest.approx(float(tokens.double().sum() / 2), abs=1e-4)
