"""Whole runs of the losses with a head of their own: saved, resumed bit for bit, evaluated, built upon."""

from __future__ import annotations

import hashlib
import json
import math
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from prospect.batch import Role
from prospect.config.schema import Config, DatasetConfig, DType, Mode, PeftConfig
from prospect.conversation import answered, asked
from prospect.errors import UserError
from prospect.model.score import RewardModel
from prospect.parallel import World
from prospect.updates import Updates
from tests import tiny
from tests.planted import plant
from tests.runs import result, run
from trainers import make_trainer
from trainers.eval_run import evaluate_run
from trainers.launch import train_in_process
from trainers.loop import Loop


def config(folder: Path, loss: str, **changes: Any) -> Config:
    return tiny.config(
        folder, loss, 60, **{"exp_name": "run", "n_examples": 40, "eval_every": 24, "lr": 3e-3} | changes
    )


def left(folder: Path) -> dict[str, Any]:
    """All that a run leaves for good, with its value head."""
    head = folder / "LATEST" / "v_head.safetensors"
    own = {"value head": hashlib.sha256(head.read_bytes()).hexdigest()} if head.is_file() else {}
    return result(folder) | own


@pytest.mark.long
@pytest.mark.parametrize(
    ("loss", "changes"),
    [("ppo", {"v_head_max_grad_norm": 0.05}), ("reward", {}), ("reward", {"peft": PeftConfig(r=4, dropout=0.2)})],
)
def test_killed_and_resumed_it_is_the_same_to_the_last_bit(loss: str, changes: dict[str, Any], tmp_path: Path) -> None:
    assert run(config(tmp_path / "one", loss, **changes)) == 0
    wanted = left(tmp_path / "one" / "run")
    broken = config(tmp_path / "two", loss, **changes)
    assert run(broken, ("after the update", 4)) == -signal.SIGKILL
    assert run(broken, ("saving the optimizer", 1)) == -signal.SIGKILL
    assert run(broken) == 0
    assert left(tmp_path / "two" / "run") == wanted
    assert ("value head" in wanted) == (loss == "ppo")


def evaluation(config: Config) -> dict[str, Any]:
    """What eval.py says of a run, beside what the run itself has logged last."""
    assert evaluate_run(replace(config, mode=Mode.eval)) == 0
    folder = Path(config.cache_dir) / "run"
    found: dict[str, Any] = json.loads((folder / "eval-test.json").read_text())
    wanted = {k: v for k, v in logged(folder)[-1].items() if k.startswith("eval/")}
    assert {k: found[k] for k in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    return found


def telling(config: Config, **changes: Any) -> Config:
    """The same run on pairs whose better answer speaks of colours."""
    rng = random.Random(3)
    words = {"chosen": ("red", "green", "blue"), "rejected": ("stone", "river", "seven")}
    rows = [
        {"prompt": f"{i}: the?", **{kind: " ".join(rng.choices(of, k=rng.randint(1, 6))) for kind, of in words.items()}}
        for i in range(160)
    ]
    file = Path(config.cache_dir) / "telling.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return replace(config, datasets={"telling": DatasetConfig(path=str(file), test_fraction=0.2)}, **changes)


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_ppo_trains_policy_and_critic(tmp_path: Path) -> None:
    made = telling(config(tmp_path, "ppo"), n_examples=240, eval_every=120, lr=1e-2)
    made.loss.critic_coef, made.loss.ppo_epochs = 1.0, 2
    assert train_in_process(made, World()) == 0
    folder = tmp_path / "run"
    model = AutoModelForCausalLM.from_pretrained(folder / "LATEST")
    assert type(model).__name__ == "LlamaForCausalLM"
    for place in ("LATEST", "BEST", "checkpoints/step-30/policy"):
        assert float(load_file(folder / place / "v_head.safetensors")["weight"].norm()) > 0
    lines = logged(folder)
    start, end = lines[0], lines[-1]
    assert start["eval/kl"] == pytest.approx(0, abs=1e-6)
    assert start["eval/policy_loss"] == pytest.approx(0, abs=1e-5)
    assert end["eval/critic_loss"] < 0.7 * start["eval/critic_loss"]
    assert end["eval/rewards/auc"] > 0.9
    assert {"kl", "clipped", "values", "returns", "rewards/auc", "logps/chosen"} <= set(lines[-2])
    low, high = evaluation(made)["ci95"]["eval/rewards/auc"]
    assert 0 < low < end["eval/rewards/auc"] <= high, "however well two answers stand apart from six, they are few"


def test_a_reward_model_learns_scores_and_ppo_earns_them(tmp_path: Path) -> None:
    rm = telling(config(tmp_path, "reward"), lr=1e-2, n_examples=96)
    assert train_in_process(rm, World()) == 0
    folder = tmp_path / "run" / "LATEST"
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.num_labels == 1
    assert evaluation(rm)["eval/rewards/accuracies"] > 0.9
    for name, computed in (("ppo", "some"), ("again", "none")):
        made = telling(config(tmp_path, "ppo", exp_name=name))
        made.loss.reward_model = "run"
        assert train_in_process(made, World()) == 0
        said = (tmp_path / name / "log" / "rank-0.log").read_text()
        line = next(line for line in said.splitlines() if "rewards: scores" in line)
        assert line.endswith(", 0 computed now") == (computed == "none")
    trainer, engine = tiny.trainer_and_engine(made)
    batches = engine.data.microbatches(engine.data.step(0))
    roles = [role for batch in batches for role in batch.roles]
    grades = [float(x) for batch in batches for x in batch.grades]
    mean = {role: [x for x, r in zip(grades, roles, strict=True) if r is role] for role in set(roles)}
    assert min(mean[Role.chosen]) > max(mean[Role.rejected])
    scorer = RewardModel.load(folder, torch.device("cpu"))
    rows = [json.loads(line) for line in (tmp_path / "telling.jsonl").read_text().splitlines()]
    talks = [asked(row["prompt"]).then(answered(row[kind])) for row in rows for kind in ("chosen", "rejected")]
    scores = scorer.scores(talks)
    assert all(min(abs(x - y) for y in scores) < 1e-5 for x in grades)
    metrics, _ = tiny.gradients(trainer, engine)
    made.loss.reward_baseline = 1.0
    assert tiny.gradients(trainer, engine)[0]["returns"] < metrics["returns"] - 0.5


def test_a_reward_model_of_an_sft_run_has_its_body(tmp_path: Path) -> None:
    assert train_in_process(config(tmp_path, "sft", exp_name="sft"), World()) == 0
    assert train_in_process(config(tmp_path, "reward", load_from="sft", n_examples=8, lr=1e-9), World()) == 0
    parent = json.loads((tmp_path / "run" / "manifest.json").read_text())["parents"][0]["path"]
    assert parent == str(tmp_path / "sft" / "LATEST")
    theirs, ours = (load_file(tmp_path / name / "LATEST" / "model.safetensors") for name in ("sft", "run"))
    shared = [name for name in ours if name in theirs]
    assert len(shared) == len(ours) - 1
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in shared)


def test_the_value_head_is_clipped_alone(tmp_path: Path) -> None:
    made = config(tmp_path, "ppo", v_head_max_grad_norm=0.01, max_grad_norm=0.5)
    trainer, engine = tiny.trainer_and_engine(made)
    parameters = engine.policy.parameters()
    for alone in (True, False):
        if not alone:
            made.model.v_head_max_grad_norm = None
        made.loss.critic_coef = 10.0
        tiny.gradients(trainer, engine)
        grads = [p.grad for p in parameters if p.grad is not None]
        whole = float(torch.cat([g.reshape(-1) for g in grads]).norm())
        assert engine.policy.value_head is not None
        updates = Updates(made, parameters, list(engine.policy.value_head.parameters()))
        found = updates.norms().tolist()
        assert math.hypot(*found) == pytest.approx(whole, rel=1e-5)
        updates.clip(found)
        norms = [float(torch.cat([g.reshape(-1) for g in part]).norm()) for part in (grads[:-2], grads[-2:])]
        if alone:
            assert norms == pytest.approx([0.5, 0.01], rel=1e-3)
        else:
            assert math.hypot(*norms) == pytest.approx(0.5, rel=1e-3)


def test_a_norm_for_a_head_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.v_head_max_grad_norm: loss=dpo has no value head; leave it out"):
        make_trainer(config(tmp_path, "dpo", v_head_max_grad_norm=0.1))


def test_a_reward_model_in_bfloat16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.weights_dtype: loss=reward keeps its weights in float32"):
        make_trainer(config(tmp_path, "reward", weights_dtype=DType.bfloat16))


def test_planted_forgotten_value_head_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that continues or is evaluated has no fresh critic."""
    made = config(tmp_path, "ppo", lr=1e-2)
    made.loss.critic_coef = 1.0
    plant(monkeypatch, Loop._save_policy, "policy.value_head.save(folder)", "pass")
    assert train_in_process(made, World()) == 0
    with pytest.raises(UserError, match=r"the value head of .*LATEST/v_head.safetensors: missing: bias, weight"):
        evaluation(made)
