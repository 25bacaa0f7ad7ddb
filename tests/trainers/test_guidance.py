"""What a paper's results took, beside what a run plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from prospect.logs import log
from tests import tiny
from tests.planted import plant
from trainers import make_trainer, setup
from trainers.guidance import Guidance

ORPO = Guidance(2000, 64, "the paper's")


def test_a_plan_that_is_small_says_by_how_much() -> None:
    assert ORPO.beside(100, 800) == (
        "planned 100 steps of about 8 = 800 records; "
        "the paper's: at least 2,000 steps of 64 = 128,000 (160 times as many)"
    )


def test_a_plan_that_suffices_says_no_more() -> None:
    assert ORPO.beside(2000, 128_000).endswith("= 128,000")


def _said(folder: Path, loss: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    made = tiny.config(folder, loss, n_examples=16)
    caplog.clear()
    log.propagate = False  # as log_to leaves it
    log.addHandler(caplog.handler)
    log.setLevel("INFO")
    setup.prepare_data(made, make_trainer(made), setup.prepare_text(made, None))
    log.removeHandler(caplog.handler)
    return [line.partition("guidance: ")[2] for line in caplog.messages if "guidance: " in line]


def test_orpo_says_it_at_the_start_and_others_do_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert _said(tmp_path, "sft", caplog) == []
    (line,) = _said(tmp_path, "orpo", caplog)
    assert line.startswith("planned 2 steps of about 8 = 16 records; ORPO's results took: at least 2,000 steps of 64")


def test_planted_bug_of_saying_nothing_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plant(monkeypatch, setup.prepare_data, "trainer.guidance is not None", "False")
    assert _said(tmp_path, "orpo", caplog) == []
