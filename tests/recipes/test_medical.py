"""MedicalGPT's pipeline at toy size: killed on the way, continued, and refused once a parent has changed."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from prospect.config.compose import CONFIG
from prospect.config.names import keys
from tests import runs
from tests.config.test_command import run
from tests.standins import Place

SMALL = "n_examples=16 n_eval_examples=4 model.batch_size=8 model.max_length=128 model.max_prompt_length=64"


def _chain(command: str, folder: Path, point: runs.Point | None) -> None:
    """train.py in a process of its own, which is killed at ``point``."""
    import train
    from prospect.config import run_command

    torch.set_num_threads(1)
    os.chdir(folder)
    if point is not None:
        runs._arm(point, lambda: os.kill(os.getpid(), signal.SIGKILL))
    sys.exit(run_command(command.split()[2:], train.losses, train.job))


def killed(command: str, folder: Path, point: runs.Point) -> None:
    process = runs.FORKS.Process(target=_chain, args=(command, folder, point))
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL


def manifest(folder: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "runs" / f"medical_tiny_{stage}" / "manifest.json").read_text())
    return found


def data(folder: Path, shared: Path) -> None:
    """Real rows, few of them."""
    texts = (shared / "wiki_demo.txt").read_text(encoding="utf-8").replace(". ", ".\n").splitlines()
    (folder / "texts.txt").write_text("\n".join(line for line in texts if len(line) > 40)[:20_000])
    for name, file in (("instructions", "alpaca_en_demo.json"), ("pairs", "dpo_en_demo.json")):
        rows = json.loads((shared / file).read_text())[:60]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_stages_of_the_pipeline() -> None:
    _, configs = run("chain=medical model=llama7b stages=[pt,sft,reward,ppo,dpo]")
    assert [config.loss.name for config in configs] == ["pt", "sft", "reward", "ppo", "dpo"]
    names = [config.exp_name for config in configs]
    assert names == [f"medical_llama7b_{stage}" for stage in ("pt", "sft", "reward", "ppo", "dpo")]
    assert [config.model.load_from for config in configs] == [None, names[0], names[1], names[1], names[1]]
    assert configs[3].loss.reward_model == names[2]
    for config in configs:
        assert (config.peft.r, config.peft.alpha, config.peft.dropout, config.peft.merge_on_export) == (
            8,
            16,
            0.05,
            True,
        )
    assert (configs[3].target_kl, configs[3].loss.reward_baseline) == (0.1, 0.0)


def test_a_stages_name_is_no_key() -> None:
    """sft.lr=… is a word for a stage."""
    for file in (CONFIG / "chain").glob("*.yaml"):
        own = set(yaml.safe_load(file.read_text()))
        assert not own & ({key.split(".")[0] for key in keys()} | {folder.name for folder in CONFIG.iterdir()})


@pytest.mark.long
def test_one_command_for_the_chain(tmp_path: Path, shared_data: Path) -> None:
    place = Place(tmp_path, warm=True)
    data(tmp_path, shared_data)
    files = "pt.datasets.files.path=texts.txt sft.datasets.files.path=instructions.jsonl "
    files += " ".join(f"{stage}.datasets.files.path=pairs.jsonl" for stage in ("reward", "ppo", "dpo"))
    command = f"python train.py chain=medical model=tiny {files} {SMALL}"
    killed(command, tmp_path, ("after the update", 3))  # in the second stage
    assert "finished_at" in manifest(tmp_path, "pt")
    assert not (tmp_path / "runs" / "medical_tiny_reward").exists()

    done = place.run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("finished: ") == 4
    assert "run: runs/medical_tiny_pt" not in done.stdout
    assert "run: runs/medical_tiny_sft" in done.stdout

    latest = "runs/medical_tiny_{}/LATEST"
    for stage, parents in {"sft": ["pt"], "reward": ["sft"], "ppo": ["sft", "reward"]}.items():
        found = manifest(tmp_path, stage)["parents"]
        assert [parent["path"] for parent in found] == [latest.format(name) for name in parents]
        assert all(parent["files"] for parent in found)
        assert (tmp_path / latest.format(stage) / "model.safetensors").is_file()  # merged
        assert not (tmp_path / latest.format(stage) / "adapter_config.json").exists()

    other = place.run(f"{command} stages=[pt,sft,dpo]")
    assert other.returncode == 0, other.stdout + other.stderr
    assert manifest(tmp_path, "dpo")["parents"][0]["path"] == latest.format("sft")
    assert other.stdout.count("run: ") == 1

    change(tmp_path / latest.format("pt"))
    refused = place.run(command)
    assert refused.returncode == 2
    first, second = refused.stderr.splitlines()[-2:]
    assert (
        "runs/medical_tiny_sft was started from runs/medical_tiny_pt/LATEST, whose weights have changed since" in first
    )
    assert second == "medical: stopped at medical_tiny_sft; the same command continues there"


def change(folder: Path) -> None:
    """Other weights in a policy's folder, as if it had been trained anew."""
    from prospect.checkpoint.commit import committed, link_tree

    weights = load_file(folder / "model.safetensors")
    weights = {name: tensor + 1e-3 for name, tensor in weights.items()}
    with committed(folder) as building:
        link_tree(folder, building)
        (building / "model.safetensors").unlink()
        save_file(weights, building / "model.safetensors", {"format": "pt"})
