"""The contract: the commands that users rely on, run as written, and the files that they promise."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.pages import commands
from tests.standins import CHECKOUT, Place, judged

Done = dict[str, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with judged(Place(tmp_path_factory.mktemp("contract"), warm=True)) as place:
        yield place


@pytest.fixture(scope="module")
def done(place: Place) -> Done:
    """All commands of docs/running.md, run in order; what each has said."""
    found = {command: place.run(command) for command in commands(CHECKOUT / "docs" / "running.md")}
    for command, done in found.items():
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return found


TRAIN = (
    "python train.py loss=sft model=llama7b datasets=[shp,hh,oasst] exp_name=llama7b_sft mode=train "
    "++cache_dir=/data/models",
    "python train.py loss=kto model=llama7b datasets=[shp,hh,oasst] exp_name=llama7b_kto mode=train "
    "++cache_dir=/data/models ++model.load_from=llama7b_sft/LATEST/policy.pt",
    "python train.py loss=kto-simple model=llama7b datasets=[shp,hh,oasst] exp_name=kto-simple_llama7b mode=train "
    "++cache_dir=/data/models",
)
EVAL = (
    "python eval.py --config-path=/data/models/kto-simple_llama7b/config.yaml ++mode=sample ++n_samples=512 "
    "++model.eval_batch_size=32 ++samples_dir=samples/",
    "python eval.py --config-path=/data/models/kto-simple_llama7b ++mode=eval",
    "python eval.py --config-path=/data/models/kto-simple_llama7b ++mode=alpacaeval",
)
COMPARE = "python compare.py -f samples/kto-simple_llama7b.json -mc 512 -bk chosen -ck policy -r result.jsonl"
SWEEP = "python train.py -m loss=dpo,kto model=llama7b loss.beta=0.05,0.1,0.2"


@pytest.mark.long
def test_commands_run_as_written(done: Done) -> None:
    assert {*TRAIN, *EVAL, COMPARE, SWEEP} <= set(done)


def test_a_run_leaves_what_was_promised(done: Done, place: Place) -> None:
    run = place.folder / "models" / "llama7b_kto"
    for name in ("config.yaml", "metrics.jsonl", "manifest.json", "log/rank-0.log", "LATEST/README.md", "checkpoints"):
        assert (run / name).exists(), name
    AutoModelForCausalLM.from_pretrained(run / "LATEST")
    tokenizer = AutoTokenizer.from_pretrained(run / "LATEST")
    assert "<|user|>" in tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["parents"][0]["path"].endswith("llama7b_sft/LATEST")
    assert {"finished_at", "started_at", "code", "packages", "data", "seed"} <= set(manifest)
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "rewards/chosen", "rewards/margins", "logps/chosen", "kl", "grad_norm", "lr"} <= set(metrics[-2])
    assert metrics[0]["step"] == 0
    assert metrics[0]["eval/loss"] == pytest.approx(0.5, abs=1e-4)


def test_the_same_command_again_is_finished_and_another_is_refused(done: Done, place: Place) -> None:
    again = place.run(TRAIN[1])
    assert again.returncode == 0
    assert again.stdout.startswith("finished:")
    other = place.run(f"{TRAIN[1]} lr=1e-3")
    assert other.returncode == 2
    assert "lr is 5e-06 there and 0.001 now" in other.stderr


def test_samples_answers_and_the_comparison_have_their_keys(done: Done, place: Place) -> None:
    samples = json.loads((place.folder / "samples" / "kto-simple_llama7b.json").read_text())
    assert {"sampled_at", "config", "samples"} <= set(samples)
    assert {"prompt", "chosen", "policy"} <= set(samples["samples"][0])
    assert all("<|user|>" in row["prompt"] and row["chosen"] for row in samples["samples"])
    answers = json.loads((place.folder / "samples" / "alpaca_kto-simple_llama7b.json").read_text())
    assert len(answers) == 4
    assert set(answers[0]) == {"instruction", "output", "generator", "dataset"}
    result = json.loads((place.folder / "result.jsonl").read_text())
    assert {"date", "total", "seed", "exp_name", "judge", "candidate", "baseline", "config"} <= set(result)
    assert {"name", "wins", "lengths"} <= set(result["candidate"])
    assert result["exp_name"] == "kto-simple_llama7b"
    assert result["total"] == len(samples["samples"])


def test_a_sweep_is_one_run_for_each_combination(done: Done, place: Place) -> None:
    runs = {p.parent.name for p in (place.folder / "runs").glob("*/LATEST")}
    assert len(runs) == 6
    assert {"dpo_llama7b", "kto_llama7b"} <= {name.split("_loss")[0].split("_model")[0] for name in runs}
    assert done[SWEEP].stdout.count(", 0 computed now") >= 2  # one pass of the reference model serves all betas


def test_the_rest_has_defaults(place: Place, tmp_path: Path) -> None:
    alone = place.run(f"python train.py loss=kto model=llama7b cache_dir={tmp_path}")
    assert alone.returncode == 0, alone.stderr
    (run,) = [p.parent for p in tmp_path.glob("*/LATEST")]
    assert load_file(run / "LATEST" / "model.safetensors")
