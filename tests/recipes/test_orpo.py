"""The two ORPO recipes: settings of their sources, and a run of each at toy size on real pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from prospect.config.schema import Quantization
from tests.config.test_command import run
from tests.standins import Place, write_jsonl

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SMALL = "n_examples=16 n_eval_examples=4 model.batch_size=4 model.max_length=256 model.max_prompt_length=128"


def test_settings_of_the_article() -> None:
    _, (config,) = run("experiment=orpo-mistral")
    assert (config.loss.name, config.loss.or_weight, list(config.datasets)) == ("orpo", 0.1, ["ultrabin"])
    assert config.model.name_or_path == "mistralai/Mistral-7B-v0.1"
    assert (config.peft.r, config.peft.alpha, config.peft.dropout, config.peft.target_modules) == (16, 16, 0.05, SEVEN)
    assert (config.peft.quantization, config.peft.double_quant, config.peft.use_dora) == (Quantization.nf4, True, False)
    assert (config.optimizer, config.lr, config.lr_schedule, config.warmup) == ("PagedAdamW8bit", 8e-6, "linear", 0.1)
    assert (config.model.batch_size, config.eval_every / config.model.batch_size) == (8, 20)


def test_settings_of_the_course() -> None:
    _, (config,) = run("experiment=orpo-smol")
    assert (config.loss.name, config.loss.or_weight, config.lr) == ("orpo", 1.0 * 0.1, 1e-5)
    assert (config.model.batch_size, config.n_examples) == (4 * 4, 4 * 4 * 1000)


def ultrabin(shared: Path, file: Path) -> Path:
    """Real pairs in UltraFeedback's columns: both sides are conversations."""
    rows = []
    for row in json.loads((shared / "dpo_en_demo.json").read_text())[:60]:
        prompt = row["conversations"][0]["value"]
        talks = {side: [{"role": "user", "content": prompt}] for side in ("chosen", "rejected")}
        for side, talk in talks.items():
            talk.append({"role": "assistant", "content": row[side]["value"]})
        rows.append({"prompt": prompt, **talks, "messages": talks["chosen"]})
    return write_jsonl(file, rows)


@pytest.mark.long
@pytest.mark.parametrize("dora", [False, True])
def test_mistral_at_toy_size(dora: bool, tmp_path: Path, shared_data: Path) -> None:
    place = Place(tmp_path, warm=True)
    place.data["ultrabin"] = ultrabin(shared_data, tmp_path / "ultrabin.jsonl")
    option = "peft.use_dora=true" if dora else ""
    done = place.run(f"python train.py experiment=orpo-mistral exp_name=orpo eval_every=8 {option} {SMALL}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "guidance: planned 4 steps of about 4 = 16 records; ORPO's results took: at least 2,000 steps" in done.stdout
    weights = load_file(tmp_path / "runs" / "orpo" / "LATEST" / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in weights if "lora_A" in name} == set(SEVEN)
    assert any("magnitude" in name for name in weights) == dora
    lines = [json.loads(x) for x in (tmp_path / "runs" / "orpo" / "metrics.jsonl").read_text().splitlines()]
    assert {"eval/loss", "eval/rewards/accuracies", "eval/rewards/margins"} <= set().union(*lines)


@pytest.mark.long
def test_smol_at_toy_size(tmp_path: Path, shared_data: Path) -> None:
    place = Place(tmp_path, warm=True)
    place.data["ultrabin"] = ultrabin(shared_data, tmp_path / "ultrabin.jsonl")
    done = place.run(f"python train.py experiment=orpo-smol exp_name=orpo {SMALL}")
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((tmp_path / "runs" / "orpo" / "manifest.json").read_text())
    assert manifest["summary"]["examples"] == 16
