"""Weights of desirable and undesirable answers: ``auto``, what is said, and what is recorded."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from prospect.config.convert import convert
from prospect.config.schema import Config, Mode
from prospect.errors import UserError
from prospect.parallel import World
from tests import tiny
from tests.planted import plant
from trainers import make_trainer, weights
from trainers.eval_run import _WORKERS
from trainers.explain import explain
from trainers.kto import KTOTrainer
from trainers.launch import train_in_process
from trainers.setup import prepare_data, prepare_text
from trainers.weights import Weight, WeightedConfig, settled

CASES: list[tuple[Weight, Weight, tuple[int, int], tuple[float, float]]] = [
    ("auto", 1.0, (10, 30), (3.0, 1.0)),
    ("auto", "auto", (10, 30), (3.0, 1.0)),
    (1.0, "auto", (10, 30), (1.0, 1 / 3)),
    ("auto", 2.0, (10, 30), (6.0, 2.0)),
    ("auto", 1.0, (30, 10), (1 / 3, 1.0)),
    (1.5, 0.5, (10, 30), (1.5, 0.5)),
]


@pytest.mark.parametrize(("desirable", "undesirable", "counts", "wanted"), CASES)
def test_numbers(desirable: Weight, undesirable: Weight, counts: tuple[int, int], wanted: tuple[float, float]) -> None:
    found = settled(WeightedConfig(desirable_weight=desirable, undesirable_weight=undesirable), *counts)
    assert (found.desirable_weight, found.undesirable_weight) == pytest.approx(wanted)
    if "auto" in (desirable, undesirable):
        assert found.ratio == pytest.approx(1)
        assert not found.outside()


@pytest.mark.parametrize(("old", "new"), [("other * undesirable / desirable", "other * desirable / undesirable")])
def test_a_planted_bug_is_seen(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, weights.settled, old, new)
    with pytest.raises(AssertionError):
        test_numbers(*CASES[0])


@pytest.mark.parametrize("counts", [(49, 49), (40, 30), (3, 3)])
def test_within_the_interval(counts: tuple[int, int]) -> None:
    assert not settled(WeightedConfig(), *counts).outside()


@pytest.mark.parametrize("counts", [(41, 30), (29, 30), (5, 0), (0, 5)])
def test_outside_the_interval(counts: tuple[int, int]) -> None:
    assert settled(WeightedConfig(), *counts).outside()


@pytest.mark.parametrize("counts", [(5, 0), (0, 5)])
def test_auto_needs_both_kinds(counts: tuple[int, int]) -> None:
    says = rf"loss.desirable_weight: auto needs answers of both kinds; .* have {counts[0]} desirable and {counts[1]} un"
    with pytest.raises(UserError, match=says):
        settled(WeightedConfig(desirable_weight="auto"), *counts)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("automatic", "loss.desirable_weight: expected a number or auto, not 'automatic'"),
        (None, "loss.desirable_weight: may not be null; expected a number"),
        (True, "loss.desirable_weight: expected a number, not true"),
    ],
)
def test_what_is_no_weight_is_refused(given: Any, problem: str) -> None:
    problems: list[str] = []
    convert(KTOTrainer.Config, {"desirable_weight": given}, "loss.", problems)
    assert problems == [problem]


@pytest.mark.parametrize(("given", "wanted"), [("auto", "auto"), (2, 2.0)])
def test_what_is_one_is_taken(given: Any, wanted: Weight) -> None:
    problems: list[str] = []
    assert convert(KTOTrainer.Config, {"desirable_weight": given}, "loss.", problems).desirable_weight == wanted
    assert problems == []


def config(folder: Path, **loss: Any):
    """Twice as many undesirable answers as desirable ones: of the latter only a half is used."""
    made = tiny.config(folder, "kto", frac_unique_desirable=0.5, n_examples=16)
    for key, value in loss.items():
        setattr(made.loss, key, value)
    return made


def test_the_counts_are_those_that_training_shows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = config(tmp_path, desirable_weight="auto")
    logging.getLogger("prospect").propagate = True
    trainer = make_trainer(made)
    with caplog.at_level(logging.INFO):
        prepare_data(made, trainer, prepare_text(made, None))
    assert trainer.weights == {
        "desirable_weight": pytest.approx(33 / 16),
        "undesirable_weight": 1.0,
        "desirable": 16,
        "undesirable": 33,
    }
    assert trainer.config.loss.desirable_weight == pytest.approx(33 / 16)
    assert made.loss.desirable_weight == "auto"  # the run's configuration is what was written
    assert "desirable_weight 2.0625 × 16 answers, undesirable_weight 1 × 33 answers: ratio 1" in caplog.text
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


def test_numbers_outside_the_interval_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = config(tmp_path)
    logging.getLogger("prospect").propagate = True
    with caplog.at_level(logging.INFO):
        prepare_data(made, make_trainer(made), prepare_text(made, None))
    (warning,) = {r.getMessage() for r in caplog.records if r.levelno == logging.WARNING}
    assert "× 16 answers" in warning
    assert "ratio 0.4848; keep it between 1 and 4/3 (loss.desirable_weight=auto makes it 1)" in warning
    assert "\n" not in warning


def test_a_run_records_them_and_evaluation_uses_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(tmp_path, desirable_weight="auto")
    assert train_in_process(made, World()) == 0
    manifest = json.loads((tmp_path / "kto" / "manifest.json").read_text())
    assert manifest["weights"]["desirable_weight"] == pytest.approx(33 / 16)
    assert manifest["summary"]["weights"] == manifest["weights"]
    assert train_in_process(made, World()) == 0  # the same configuration still
    assert "desirable_weight: auto" in (tmp_path / "kto" / "config.yaml").read_text()
    made.mode = Mode.eval
    made.frac_unique_desirable = 1.0
    made.n_eval_examples = 8
    assert _WORKERS[Mode.eval](made, World()) == 0
    found = json.loads((tmp_path / "kto" / "eval-test.json").read_text())
    assert found["eval/loss"] == pytest.approx(manifest["summary"]["eval"]["eval/loss"], abs=1e-5)


@pytest.mark.parametrize("loss", ["kto", "kto-zero", "kto-logsigmoid", "kto-surprisal"])
def test_every_loss_with_weights_takes_auto(loss: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = tiny.loss_config(loss, desirable_weight="auto", undesirable_weight="auto")
    assert explain(Config(loss=made)) == 0
    assert "loss.desirable_weight=1.0" in capsys.readouterr().out
