"""A reward model under an adapter: its output layer is trained and saved with it, and goes where the adapter goes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from prospect.config.schema import PeftConfig
from prospect.conversation import answered, asked
from prospect.errors import UserError
from prospect.model.score import RewardModel
from prospect.parallel import World
from tests.trainers.test_adapters import LORA, QLORA, evaluated, evaluations
from tests.trainers.test_heads import config, telling
from trainers.launch import train_in_process

CPU = torch.device("cpu")
TALKS = [asked("7: the?").then(answered(answer)) for answer in ("red blue green", "stone", "the river")]


def train(folder: Path, loss: str = "reward", **changes: Any) -> Path:
    made = telling(config(folder, loss, lr=1e-2, n_examples=64, peft=changes.pop("peft", LORA), **changes))
    assert train_in_process(made, World()) == 0
    return folder / str(made.exp_name)


def whole(folder: Path) -> list[float]:
    """Scores by transformers' own classifier."""
    model, chat = AutoModelForSequenceClassification.from_pretrained(folder), RewardModel.load(folder, CPU)
    with torch.no_grad():
        return [model(torch.tensor([chat.encode(talk)])).logits.item() for talk in TALKS]


@pytest.mark.parametrize("peft", [LORA, replace(LORA, use_dora=True), QLORA], ids=["lora", "dora", "qlora"])
def test_it_is_trained_saved_merged_and_built_upon(peft: PeftConfig, tmp_path: Path) -> None:
    if peft.quantization is not None:
        pytest.importorskip("bitsandbytes")
    run = train(tmp_path, peft=peft)
    start, *_, end = evaluations(run)
    assert end["eval/rewards/accuracies"] > 0.9
    assert end["eval/loss"] < 0.5 * start["eval/loss"]
    stored = load_file(run / "LATEST" / "adapter_model.safetensors")
    assert [name for name in stored if "lora_" not in name] == ["base_model.model.score.weight"]
    assert not (run / "LATEST" / "model.safetensors").exists()
    assert evaluated(run, mode="eval")["eval/loss"] == pytest.approx(end["eval/loss"], abs=1e-5)

    evaluated(run, mode="merge", out=tmp_path / "whole")
    scores = RewardModel.load(run / "LATEST", CPU, cache_dir=tmp_path).scores(TALKS)
    assert scores[0] > max(scores[1:]) + 0.5
    assert whole(tmp_path / "whole") == pytest.approx(scores, abs=1e-5)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole").config.num_labels == 1

    again = evaluations(train(tmp_path, load_from="run", exp_name="again", peft=peft))
    near = 1e-5 if peft.quantization is None else 5e-2  # four bits round the merged weights anew
    assert again[0]["eval/loss"] == pytest.approx(end["eval/loss"], abs=near)
    with pytest.raises(UserError, match=r"run/LATEST is a reward model: it scores answers and writes none"):
        train(tmp_path, "dpo", load_from="run", exp_name="dpo")


def test_ppo_earns_its_scores_and_export_merges_it(tmp_path: Path) -> None:
    run = train(tmp_path)
    exported = train(tmp_path, exp_name="exported", peft=replace(LORA, merge_on_export=True))
    assert not (exported / "LATEST" / "adapter_config.json").exists()
    scores = RewardModel.load(run / "LATEST", CPU).scores(TALKS)
    assert whole(exported / "LATEST") == pytest.approx(scores, abs=1e-5)
    for name in ("run", "exported"):
        ppo = telling(config(tmp_path, "ppo", exp_name=f"by-{name}", n_examples=16))
        ppo.loss.reward_model = name
        assert train_in_process(ppo, World()) == 0
    one, other = (evaluations(tmp_path / f"by-{name}")[0]["eval/returns"] for name in ("run", "exported"))
    assert one == pytest.approx(other, abs=1e-5)
    parents = json.loads((tmp_path / "by-run" / "manifest.json").read_text())["parents"]
    assert parents[-1]["path"] == str(run / "LATEST")


def test_it_stands_on_an_sft_adapter(tmp_path: Path) -> None:
    sft = train(tmp_path, "sft", exp_name="sft")
    run = train(tmp_path, load_from="sft")
    assert json.loads((run / "LATEST" / "base.json").read_text())["name"] == str(sft / "LATEST")
    end = evaluations(run)[-1]
    assert evaluated(run, mode="eval")["eval/loss"] == pytest.approx(end["eval/loss"], abs=1e-5)
