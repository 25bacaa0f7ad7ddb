"""Chains: several runs by one command, each checked before the first one starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from prospect.config import Config, chain
from prospect.errors import MachineError
from tests.config.test_command import run
from tests.planted import plant

TOY = """\
# A chain for tests.
stages: [first, second]
first: loss=sft datasets=[demo] lr=1e-3
second: loss=dpo datasets=[demo] model.load_from={first}
third: loss=kto datasets=[demo] model.load_from={first}
"""


@pytest.fixture(autouse=True)
def _toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.yaml").write_text(TOY)
    monkeypatch.setattr(chain, "_FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)


def test_stages_are_runs_that_start_from_one_another() -> None:
    code, (first, second) = run("chain=toy model=tiny")
    assert code == 0
    assert (first.exp_name, first.loss.name, first.lr) == ("toy_tiny_first", "sft", 1e-3)
    assert (second.exp_name, second.loss.name, second.lr) == ("toy_tiny_second", "dpo", 5e-6)
    assert (first.model.load_from, second.model.load_from) == (None, "toy_tiny_first")


def test_a_typed_word_wins_over_a_stages_own() -> None:
    _, (first, _) = run("chain=toy model=tiny lr=0.5")
    assert first.lr == 0.5


def test_words_go_to_all_stages_or_to_one() -> None:
    _, (first, third) = run(
        "chain=toy model=tiny stages=[first,third] exp_name=mine seed=3 third.lr=0.1 ++third.loss.beta=1"
    )
    assert (first.seed, third.seed) == (3, 3)
    assert (first.lr, third.lr, third.loss.beta) == (1e-3, 0.1, 1)
    assert third.model.load_from == first.exp_name == "mine_first"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("chain=toi model=tiny", "chain: there is no toi (did you mean `toy`?)"),
        ("chain=toy model=tiny stages=[first,secnd]", "stages: toy has no secnd (did you mean `second`?)"),
        ("chain=toy model=tiny second.loss.bta=1", "loss.bta: DPOTrainer has no such key (did you mean `beta`?)"),
        ("chain=toy model=tiny lr=1,2", "lr=1,2: a chain is no sweep; give the command once for each value"),
        ("-m chain=toy model=tiny lr=1,2", "-m: a chain is no sweep; give the command once for each value"),
        ("chain=toy", "choose model=<"),
    ],
)
def test_a_mistake_starts_nothing(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == (2, [])
    assert said in capsys.readouterr().err


def test_a_stage_that_fails_ends_the_chain(capsys: pytest.CaptureFixture[str]) -> None:
    def job(config: Config) -> int:
        raise MachineError("disk full")

    code, started = run("chain=toy model=tiny", job)
    assert (code, [config.exp_name for config in started]) == (3, ["toy_tiny_first"])
    assert (
        capsys.readouterr().err
        == "error: disk full\ntoy: stopped at toy_tiny_first; the same command continues there\n"
    )


def test_an_interrupted_stage_ends_the_chain_too() -> None:
    code, started = run("chain=toy model=tiny", lambda config: 4)
    assert (code, len(started)) == (4, 1)


def test_planted_loss_of_what_a_user_types_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, chain.stages, "*own, *common,", "*common, *own,")
    _, (first, _) = run("chain=toy model=tiny lr=0.5")
    assert first.lr != 0.5
