"""DPO, eq. 7: closed forms on log-probabilities written by hand."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log
from typing import Any

import pytest

from prospect.config.schema import Config
from tests.planted import plant
from tests.trainers.logps import logps
from trainers.dpo import DPOTrainer

# Two pairs; log-ratios of chosen 1.5 and −1, of rejected −0.5 and 2.
ARGUMENTS = (
    logps([-1.0, -0.5], [-4.0]),
    logps([-2.0], [-1.0, -1.0]),
    logps([-2.0, -1.0], [-3.0]),
    logps([-1.5], [-2.0, -2.0]),
)


def trainer(beta: float = 0.5) -> DPOTrainer:
    return DPOTrainer(Config(loss=DPOTrainer.Config(beta=beta)))


def wanted(beta: float) -> list[float]:
    return [log(1 + exp(-beta * 2.0)), log(1 + exp(-beta * -3.0))]


@pytest.mark.parametrize("beta", [0.01, 0.1, 0.5])
def test_closed_form(beta: float) -> None:
    loss = trainer(beta).loss(*ARGUMENTS)
    assert loss.losses.tolist() == pytest.approx(wanted(beta), abs=1e-12)
    assert loss.chosen_rewards is not None
    assert loss.rejected_rewards is not None
    assert loss.chosen_rewards.tolist() == pytest.approx([1.5 * beta, -1.0 * beta])
    assert loss.rejected_rewards.tolist() == pytest.approx([-0.5 * beta, 2.0 * beta])


def test_gradient() -> None:
    policy = ARGUMENTS[0]
    policy.tokens.requires_grad_()
    trainer().loss(*ARGUMENTS).losses.sum().backward()
    assert policy.tokens.grad is not None
    slopes = [-0.5 / (1 + exp(0.5 * 2.0)), -0.5 / (1 + exp(0.5 * -3.0))]  # −β σ(−βΔ)
    assert policy.tokens.grad.tolist() == pytest.approx([slopes[0], slopes[0], slopes[1]])
    policy.tokens.requires_grad_(False)


def test_equal_models_give_the_start_value() -> None:
    loss = trainer().loss(ARGUMENTS[0], ARGUMENTS[1], ARGUMENTS[0], ARGUMENTS[1])
    assert loss.losses.tolist() == pytest.approx([trainer().at_start()["loss"]] * 2)


def test_far_apart_stays_finite() -> None:
    far = trainer().loss(logps([-5000.0]), logps([-1.0]), logps([-1.0]), logps([-5000.0]))
    assert far.losses.tolist() == pytest.approx([0.5 * 2 * 4999])


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        (DPOTrainer.of_ratios, "-F.logsigmoid", "-F.sigmoid"),
        (DPOTrainer.log_ratio, ".sums - reference.sums", ".means - reference.sums"),
        (DPOTrainer.of_ratios, "slope(rejected, c.alpha)", "slope(rejected, c.alpha) / c.beta"),
    ],
)
def test_a_planted_bug_is_seen(
    function: Callable[..., Any], old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, function, old, new)
    assert trainer().loss(*ARGUMENTS).losses.tolist() != pytest.approx(wanted(0.5), abs=1e-3)
