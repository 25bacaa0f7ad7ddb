"""label.py as users call it: from samples and a judge to a data set that trains."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from prospect import demo
from prospect.config.schema import DatasetConfig, Split
from prospect.conversation import Message, answered, asked
from prospect.errors import UserError
from prospect.feedback import scoring
from prospect.feedback.answers import gather
from prospect.feedback.options import Kind, parse
from prospect.feedback.stage import label
from prospect.judge.calls import Interrupted, Patience
from prospect.judge.judges import Answered, Grades
from prospect.judge.options import Asking
from prospect.message_forms import read
from prospect.model.score import RewardModel
from prospect.parallel import World
from tests import tiny
from tests.planted import plant
from trainers.launch import train_in_process

ROOT = Path(__file__).parents[2]
QUICK = Patience(base=0.002, cap=0.02)


def run(folder: Path, *flags: str) -> tuple[int, list[dict[str, Any]]]:
    """label.py's work in this process: the exit code and the rows."""
    out = folder / "feedback.jsonl"
    code = label(parse(["-o", str(out), "--cache", str(folder / "cache"), *flags]), QUICK)
    return code, [json.loads(line) for line in out.read_text().splitlines()]


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    """Three answers to each of forty of the demo's prompts, as eval.py writes them."""
    found, samples = list(demo.rows(Split.test, seed=1))[:40], []
    for row in found:
        prompt = str(row["prompt"])
        for index, text in enumerate((row["chosen"], row["rejected"], "Hello. I cannot help you.")):
            samples.append(
                {
                    "prompt": f"\n<|user|>\n{prompt}\n<|assistant|>\n",
                    "policy": text,
                    "chosen": row["chosen"],
                    "sample": index,
                    "dataset": "demo",
                    "messages": [{"role": "user", "content": prompt}],
                }
            )
    file = tmp_path / "kto.json"
    file.write_text(json.dumps({"config": {"exp_name": "kto"}, "samples": samples}))
    return file


def test_help_is_quick_and_light():
    found = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "label.py"), "--help"], capture_output=True, text=True
    )
    assert found.returncode == 0
    for flag in ("-f", "-o", "-ck", "-j", "--feedback", "--pairs", "--threshold"):
        assert f" {flag} " in found.stdout or f"[{flag} " in found.stdout
    for heavy in ("torch", "openai", "numpy", "scipy", "transformers"):
        assert f" {heavy}\n" not in found.stderr


def test_pairs_by_the_rule_say_where_they_come_from(sampled, tmp_path, capsys):
    code, rows = run(tmp_path, "-f", str(sampled), "-j", "rule", "-s", "7")
    assert code == 0
    assert "scored by rule" in capsys.readouterr().out
    assert len(rows) == 40
    for row in rows:
        prompt, chosen, rejected = (row[column][0]["content"] for column in ("prompt", "chosen", "rejected"))
        assert row["score_chosen"] == demo.score(prompt, chosen) > row["score_rejected"]
        assert row["score_rejected"] == demo.score(prompt, rejected)
        assert [name.rsplit("/", 1)[0] for name in row["samples"]] == ["kto/policy", "kto/policy"]
        assert (row["judge"], row["seed"], row["feedback"]) == ("rule", 7, "pairwise best-worst")
        assert (row["judge_prompt"], row["endpoint"], row["from_dataset"]) == (None, None, "demo")
        assert row["source_files"] == [str(sampled)]


@pytest.mark.parametrize(("loss", "kind"), [("dpo", "pairwise"), ("kto", "binary"), ("sft", "scored")])
def test_training_reads_the_result_without_being_told_its_shape(sampled, tmp_path, loss, kind):
    run(tmp_path, "-f", str(sampled), "-j", "rule", "--feedback", kind)
    data = {"files": DatasetConfig(path=str(tmp_path / "feedback.jsonl"), test_fraction=0.2)}
    config = tiny.config(tmp_path, loss, datasets=data, n_examples=16, n_eval_examples=4, max_length=256)
    assert train_in_process(config, World()) == 0
    last = json.loads((tmp_path / loss / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["examples"] == 16


def test_columns_and_files_are_answers_of_the_same_prompts(sampled, tmp_path):
    groups, left_out = gather([sampled], ("policy", "chosen"))
    assert [answer.name for answer in groups[0].answers] == ["kto/policy/0", "kto/policy/1", "kto/policy/2"]
    assert left_out == {"answers that come twice": 120}, "the chosen answer is the first sample here"
    other = tmp_path / "sft.json"
    rows = [{"prompt": groups[0].turns.messages[0].content, "policy": "Hi."}, {"prompt": "Another?", "policy": " "}]
    other.write_text(json.dumps(rows))
    groups, left_out = gather([sampled, other], ("policy",))
    assert [answer.name for answer in groups[0].answers][-1] == "sft/policy/0"
    assert left_out == {"empty answers": 1}


def test_prompts_without_messages_are_parted_at_the_templates_marks(tmp_path):
    file = tmp_path / "old.json"
    text = "\n<|user|>\nHi\n<|assistant|>\nHello\n<|user|>\nWhy?\n<|assistant|>\n"
    file.write_text(
        json.dumps([{"prompt": text, "policy": "So."}, {"instruction": "Plain?", "prompt": "Plain?", "policy": "x"}])
    )
    groups, _ = gather([file], ("policy",))
    assert [group.turns for group in groups] == [
        asked("Hi").then(answered("Hello"), Message("user", "Why?")),
        asked("Plain?"),
    ]
    assert groups[0].conversation == "USER: Hi\n\nASSISTANT: Hello\n\nUSER: Why?"


def hosted(stub: Any, sampled: Path, *flags: str) -> tuple[int, list[dict[str, Any]]]:
    return run(sampled.parent, "-f", str(sampled), "-j", "stub", "--base-url", stub.url, *flags)


def test_a_judge_of_pairs_lets_every_answer_meet_every_other_in_both_orders(stub: Any, sampled: Path) -> None:
    code, rows = hosted(stub, sampled, "--prompt", "halos", "-mc", "10")
    assert code == 0
    assert len(stub.games) == 10 * 3 * 2
    for row in rows:
        chosen, rejected = (row[column][0]["content"] for column in ("chosen", "rejected"))
        assert len(chosen) > len(rejected), "the stub likes long answers"
        assert (row["score_chosen"], row["score_rejected"]) == (1.0, 0.0)
        assert row["judge_answered_as"] == ["stub-v1"]
        assert len(row["judge_prompt"]) == 64
        assert row["endpoint"] == stub.url


def test_an_interrupted_run_goes_on_and_pays_for_nothing_twice(stub, sampled):
    flags = ("--prompt", "halos", "-mc", "10")
    with pytest.raises(Interrupted, match="--max-requests 20"):
        hosted(stub, sampled, *flags, "--max-requests", "20")
    assert not (sampled.parent / "feedback.jsonl").exists()
    code, rows = hosted(stub, sampled, *flags)
    assert (code, len(rows)) == (0, 10)
    assert set(stub.games.values()) == {1}


def test_answers_without_a_score_are_counted_not_guessed(stub, sampled):
    stub.judge = lambda first, second: "Hard to say."
    code, rows = hosted(stub, sampled, "--prompt", "halos", "-mc", "5")
    assert (code, rows) == (3, [])


def test_a_trained_reward_model_labels(sampled, tmp_path):
    assert train_in_process(tiny.config(tmp_path, "reward", n_examples=16), World()) == 0
    code, rows = run(tmp_path, "-f", str(sampled), "-j", f"rm:{tmp_path / 'reward'}", "-mc", "4")
    assert (code, len(rows)) == (0, 4)
    model = RewardModel.load(tmp_path / "reward" / "LATEST", torch.device("cpu"))
    for row in rows:
        talks = [read(row["prompt"] + row[column]) for column in ("chosen", "rejected")]
        wanted = model.scores(talks)
        assert [row["score_chosen"], row["score_rejected"]] == pytest.approx(wanted, abs=1e-5)


def test_a_reward_models_scores_are_kept(sampled, tmp_path, monkeypatch):
    asked: list[Answered] = []

    def grade(asking: Asking, items: Sequence[Answered], patience: Patience) -> Grades:
        if len(asked) == 32:
            raise KeyboardInterrupt
        asked.extend(items)
        return Grades("rm:x", [float(len(item.text)) for item in items], [None] * len(items))

    monkeypatch.setattr(scoring, "grade", grade)
    monkeypatch.setattr(scoring, "_AT_ONCE", 16)
    (tmp_path / "model").mkdir()
    flags = ("-f", str(sampled), "-j", f"rm:{tmp_path / 'model'}", "--feedback", "scored")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *flags)
    asked.append(asked[0])  # from here on it answers
    code, rows = run(tmp_path, *flags)
    assert (code, len(rows)) == (0, 120)
    assert all(row["score"] == len(row["completion"][0]["content"]) for row in rows)
    assert len(asked) == 120 + 1
    run(tmp_path, *flags)
    assert len(asked) == 120 + 1
    (tmp_path / "model" / "weights").write_text("new")
    run(tmp_path, *flags)
    assert len(asked) == 240 + 1, "another model's scores are others"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--feedback", "binary", "--threshold", "mediam"), "--threshold mediam: --feedback binary takes mean, median"),
        (("--threshold", "-1"), "--feedback pairwise takes a number from 0"),
        (("--threshold", "nan"), "--feedback pairwise takes a number from 0"),
        (("--feedback", "scored", "--threshold", "1"), "keeps every score"),
        (("--feedback", "binary", "--pairs", "random"), "needs --feedback pairwise"),
        (("-mc", "0"), "at least one prompt"),
        (("-ck", "polcy"), "did you mean `policy`"),
        (("-ck", "chosen"), "no prompt has two different answers; sample with"),
        (("-o", "{file}"), "is one of the samples files"),
    ],
)
def test_mistakes_are_said_before_anybody_is_asked(sampled, flags, message):
    with pytest.raises(UserError, match=message):
        label(parse(["-f", str(sampled), "-j", "rule", *(flag.format(file=sampled) for flag in flags)]))


def test_planted_bug_a_lost_order_is_seen(stub, sampled, monkeypatch):
    plant(monkeypatch, scoring._against_each_other, "1.0 - result", "result")
    with pytest.raises(AssertionError):
        test_a_judge_of_pairs_lets_every_answer_meet_every_other_in_both_orders(stub, sampled)


def test_kinds_are_the_flags_words():
    assert [str(kind) for kind in Kind] == ["pairwise", "binary", "scored"]
