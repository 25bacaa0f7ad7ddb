"""Probes: asked in time, once, also after a kill; and a run that is asked is the run that is not."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prospect.config.schema import Config, Mode
from prospect.errors import UserError
from prospect.parallel import World
from prospect.report import before_after
from prospect.sampling.generate import Answer
from tests import tiny
from tests.planted import plant
from tests.runs import FORKS, result, run
from trainers import probes
from trainers.eval_run import _WORKERS
from trainers.launch import train_in_process
from trainers.setup import prepare_text

QUESTIONS = ["What is red?", "Who walks under the stone?"]


def config(folder: Path, loss: str = "sft", **changes: Any) -> Config:
    settings: dict[str, Any] = {"eval_every": 16, "max_new_tokens": 6, "lr": 0.03, "probes": list(QUESTIONS)} | changes
    return tiny.config(folder, loss, **settings)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "probes.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    made = config(tmp_path_factory.mktemp("probes"))
    assert run(made) == 0
    return made, Path(made.cache_dir) / "sft"


def test_one_line_for_each_question_and_time(finished: tuple[Config, Path]) -> None:
    found = lines(finished[1])
    assert [(line["step"], line["question"]) for line in found] == [(s, q) for s in (0, 2, 4, 5) for q in QUESTIONS]
    assert [line["examples"] for line in found[::2]] == [0, 16, 32, 33]
    assert all(line["start_logp_change"] == 0 for line in found[:2])
    for line in found[2:]:
        first = next(x for x in found if x["question"] == line["question"])
        assert line["start_logp_change"] == pytest.approx(line["start_logp"] - first["start_logp"])
        assert line["start_logp_change"] != 0


def test_answers_are_greedy_and_logps_those_of_the_first_answer(finished: tuple[Config, Path]) -> None:
    """By transformers alone, on the last policy."""
    _, folder = finished
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "LATEST")
    words: Any = AutoTokenizer.from_pretrained(folder / "LATEST")
    first, last = lines(folder)[:2], lines(folder)[-2:]
    for before, after in zip(first, last, strict=True):
        turns = [{"role": "user", "content": before["question"]}]
        prompt = words(words.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)).input_ids
        out = model.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False)[0, len(prompt) :].tolist()
        assert words.decode(out, skip_special_tokens=True) == after["answer"]
        answer = words(before["answer"]).input_ids + ([words.eos_token_id] if before["finish"] == "stop" else [])
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        wanted = float(logits.gather(1, torch.tensor(answer)[:, None]).sum())
        assert after["start_logp"] == pytest.approx(wanted, abs=1e-3)


def test_weights_are_the_same_without(finished: tuple[Config, Path], tmp_path: Path) -> None:
    assert run(config(tmp_path, probes=[])) == 0
    assert not (tmp_path / "sft" / "probes.jsonl").exists()
    one, other = result(finished[1]), result(tmp_path / "sft")
    assert one == other


def test_planted_disturbance_is_seen(
    finished: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking in half precision, and leaving the weights there."""
    plant(monkeypatch, probes.Probes.ask, "answers = ", "self.policy.model.bfloat16().float(); answers = ")
    assert train_in_process(config(tmp_path), World()) == 0
    losses = [result(folder)["metrics"][1]["loss"] for folder in (finished[1], tmp_path / "sft")]
    assert abs(losses[0] - losses[1]) > 1e-5


def test_the_summary_shows_before_and_after(finished: tuple[Config, Path], capsys: pytest.CaptureFixture[str]) -> None:
    made, folder = finished
    found = json.loads((folder / "manifest.json").read_text())["summary"]["probes"]
    rows = lines(folder)
    assert found == [
        {
            "question": question,
            "before": rows[i]["answer"],
            "after": rows[-2 + i]["answer"],
            "logp_change": round(rows[-2 + i]["start_logp_change"], 4),
        }
        for i, question in enumerate(QUESTIONS)
    ]
    assert train_in_process(made, World()) == 0  # says how it ended
    out = capsys.readouterr().out
    assert f"prompt  {QUESTIONS[0]}\nbefore  " in out
    assert f"log-probability of the answer before: {found[0]['logp_change']:+.2f}" in out


def interrupted(folder: Path, kills: list[tuple[str, int]]) -> str:
    made = config(folder, keep_checkpoints=1)
    for kill in kills:
        assert run(made, kill) == -signal.SIGKILL, kill
    assert run(made) == 0
    return (folder / "sft" / "probes.jsonl").read_text()


@pytest.mark.parametrize(
    "kills",
    [
        [("evaluating", 1), ("forward", 5), ("evaluating", 2), ("saving weights", 1), ("evaluating", 3)],
        [("saving weights", 2), ("after the update", 1), ("committing", 1), ("finishing", 1)],
    ],
)
def test_kills_lose_and_double_nothing(finished: tuple[Config, Path], kills: Any, tmp_path: Path) -> None:
    assert interrupted(tmp_path, kills) == (finished[1] / "probes.jsonl").read_text()


def _without_forgetting(made: Config) -> None:
    from tests.runs import _train

    probes.forget_after = lambda file, step: None  # type: ignore[attr-defined]
    _train(made, None, 0, False)


def test_planted_lines_that_are_not_forgotten_are_seen(finished: tuple[Config, Path], tmp_path: Path) -> None:
    made = config(tmp_path, keep_checkpoints=1)
    assert run(made, ("saving weights", 1)) == -signal.SIGKILL  # start and step 2 have been asked
    process = FORKS.Process(target=_without_forgetting, args=(made,))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert (tmp_path / "sft" / "probes.jsonl").read_text() != (finished[1] / "probes.jsonl").read_text()


# ---- mode=probe


def test_asking_a_run(finished: tuple[Config, Path], capsys: pytest.CaptureFixture[str]) -> None:
    made, folder = finished
    made = config(Path(made.cache_dir))
    assert _WORKERS[Mode.probe](made, World()) == 0
    out = capsys.readouterr().out
    rows = lines(folder)
    for i, question in enumerate(QUESTIONS):
        before, after = (before_after._line(rows[at]["answer"]) for at in (i, i - 2))
        assert f"prompt  {question}\nbefore  {before}\nafter   {after}" in out
        assert f"{rows[i - 2]['start_logp_change']:+.2f}" in out
    made.saved_policy = None
    assert _WORKERS[Mode.probe](made, World()) == 0
    assert f"question  {QUESTIONS[0]}\nanswer    " in capsys.readouterr().out


def test_no_question_is_an_error(finished: tuple[Config, Path]) -> None:
    made = config(Path(finished[0].cache_dir), probes=[])
    with pytest.raises(UserError, match="probes: no question is given"):
        _WORKERS[Mode.probe](made, World())


def test_an_answer_cut_off_in_its_reasoning_has_the_tokens_that_were_sampled(tmp_path: Path) -> None:
    text = prepare_text(config(tmp_path), None)
    ids = probes._answer_ids(text, "red?", Answer("<think>\nred river", 4, "length"))
    assert text.tokenizer.decode(ids) == "<think>\nred river"


def test_a_run_on_another_starts_from_its_answers(tmp_path: Path) -> None:
    assert train_in_process(config(tmp_path), World()) == 0
    assert train_in_process(config(tmp_path, "csft", load_from="sft"), World()) == 0
    assert train_in_process(config(tmp_path, "dpo", load_from="sft"), World()) == 0
    last = [line["answer"] for line in lines(tmp_path / "sft")[-2:]]
    assert [line["answer"] for line in lines(tmp_path / "dpo")[:2]] == last
    assert len(lines(tmp_path / "csft")) >= 4
