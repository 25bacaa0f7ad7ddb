"""A run from its configuration to LATEST: starting, refusing, finding it finished, building on another run."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from prospect.batch import Batch, Logps
from prospect.checkpoint import run
from prospect.config.schema import Config
from prospect.conversation import asked
from prospect.errors import UserError
from prospect.locks import claimed
from prospect.parallel import World
from prospect.reference import CachedReference
from tests import tiny
from tests.planted import plant
from trainers import DATALOADERS, TRAINERS, make_trainer
from trainers.launch import train_in_process
from trainers.saved_policy import policy_origin, text_of


def train(folder: Path, loss: str = "sft", **changes: Any) -> int:
    return train_in_process(tiny.config(folder, loss, **{"n_examples": 16, **changes}), World())


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def test_the_same_command_again_says_that_the_run_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path) == 0
    capsys.readouterr()
    before = (tmp_path / "sft" / "metrics.jsonl").read_bytes()
    assert train(tmp_path) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"finished: {tmp_path / 'sft'}\n")
    assert "eval/loss" in out
    assert (tmp_path / "sft" / "metrics.jsonl").read_bytes() == before


def test_another_configuration_under_the_same_name_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(
        UserError, match=r"exp_name: .*sft holds a run with another configuration: lr is 0.001 there and 0.5 now"
    ):
        train(tmp_path, lr=0.5)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    folder.mkdir()
    with claimed(folder / ".lock", "it"), pytest.raises(UserError, match=r"run folder .* is in use by process \d+ on"):
        train(tmp_path)


def test_a_run_builds_on_another(tmp_path: Path) -> None:
    """The reference is what training starts from; its values are found again by every later run from there."""
    train(tmp_path)
    train(tmp_path, "dpo", load_from="sft/LATEST/policy.pt")
    (parent,) = manifest(tmp_path / "dpo")["parents"]
    assert parent["path"] == str(tmp_path / "sft" / "LATEST")
    first = json.loads((tmp_path / "dpo" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["eval/loss"] == pytest.approx(0.693147, abs=1e-6)
    assert first["eval/rewards/margins"] == pytest.approx(0, abs=1e-6)
    trained = json.loads((tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()[-1])
    assert first["eval/logps/chosen"] == pytest.approx(trained["eval/logps/chosen"], abs=1e-4)
    train(tmp_path, "dpo", load_from="sft", exp_name="again", lr=0.1)
    assert "0 computed now" in (tmp_path / "again" / "log" / "rank-0.log").read_text()


def test_a_run_whose_parent_has_changed_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    train(tmp_path, "dpo", load_from="sft")
    shutil.rmtree(tmp_path / "sft")
    train(tmp_path, lr=0.5)
    with pytest.raises(UserError, match=r"exp_name: .*dpo was started from .*sft/LATEST, whose weights have changed"):
        train(tmp_path, "dpo", load_from="sft")


def test_the_manifest_tells_where_a_run_comes_from(tmp_path: Path) -> None:
    train(tmp_path)
    found = manifest(tmp_path / "sft")
    assert found["seed"] == 1
    assert found["parents"][0]["path"] == "random weights"
    assert len(found["parents"][0]["digest"]) == 32
    assert set(found["data"]) == {"pairs/train", "pairs/evaluation"}
    assert found["packages"]["torch"].startswith(torch.__version__.split("+")[0])
    assert found["started_at"] <= found["finished_at"]


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_a_reference_that_is_not_the_start_is_refused(
    tmp_path: Path, loss: str, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prospect.reference import LiveReference

    kind = LiveReference if live else CachedReference
    logps = kind.logps

    def wrong(self, batch: Batch, *rest: Any) -> Logps:
        found = logps(self, batch, *rest)
        return Logps(found.tokens - 0.1 * (batch.segment % 2 == 0), found.segment, found.lengths)

    monkeypatch.setattr(kind, "logps", wrong)
    with pytest.raises(UserError, match=f"loss={loss}: at the start .* the reference is not the model that training"):
        train(tmp_path, loss, cache_reference_logprobs=not live)
    assert not (tmp_path / loss / "LATEST").exists()


def test_live_and_cached_reference_train_the_same_policy(tmp_path: Path) -> None:
    train(tmp_path, "kto", exp_name="cached")
    train(tmp_path, "kto", exp_name="live", cache_reference_logprobs=False)
    last = [
        json.loads((tmp_path / name / "manifest.json").read_text())["summary"]["eval"] for name in ("cached", "live")
    ]
    assert last[0] == pytest.approx(last[1], abs=2e-5)


def test_a_table_of_trainers(tmp_path: Path) -> None:
    for name, trainer in TRAINERS.items():
        assert trainer.__name__ == name
    for loss in tiny.LOSSES:
        assert make_trainer(tiny.config(tmp_path, loss)).records in DATALOADERS
    config = tiny.config(tmp_path, "dpo")
    config.loss.dataloader = "PairedPreferenceDataLoader"
    config.loss.use_reference_model = True
    assert isinstance(make_trainer(config), TRAINERS["DPOTrainer"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainer", "DPOTrainr", r"loss.trainer: there is no trainer `DPOTrainr` \(did you mean `DPOTrainer`\?\)"),
        ("dataloader", "SFTDataLoader", "loss.dataloader: DPOTrainer trains on pairs and takes PairedPreference"),
        ("use_reference_model", False, "loss.use_reference_model: DPOTrainer declares needs_reference=True"),
    ],
)
def test_a_contradiction_is_said(tmp_path: Path, key: str, value: object, message: str) -> None:
    config: Config = tiny.config(tmp_path, "dpo")
    setattr(config.loss, key, value)
    with pytest.raises(UserError, match=message):
        make_trainer(config)


class Clock(date):
    """A date whose today is set."""

    now = date(2025, 2, 3)

    @classmethod
    def today(cls) -> date:  # type: ignore[override]
        return cls.now


def test_a_run_keeps_the_day_that_its_prompts_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What continues and samples on a later day asks with the prompts that were trained."""
    monkeypatch.setattr(run, "date", Clock)
    template = tmp_path / "dated.jinja"
    template.write_text(
        "Today is {{ strftime_now('%d %B %Y') }}.\n{% for m in messages %}{{ m.content }}\n{% endfor %}"
    )
    made = tiny.config(tmp_path, n_examples=16, chat_template=str(template))
    assert train_in_process(made, World()) == 0
    assert (tmp_path / "sft" / "chat_date.txt").read_text() == "2025-02-03\n"
    monkeypatch.setattr(Clock, "now", date(2025, 2, 4))
    text = text_of(made, policy_origin(made))
    assert "Today is 03 February 2025." in text.chat.prompt(asked("red?"))
    assert train_in_process(tiny.config(tmp_path, exp_name="plain", n_examples=16), World()) == 0
    assert not (tmp_path / "plain" / "chat_date.txt").exists()


def test_planted_forgetting_of_the_day_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, run.Run.chat_day, "if file.is_file()", "if False")
    with pytest.raises(AssertionError):
        test_a_run_keeps_the_day_that_its_prompts_name(tmp_path, monkeypatch)
