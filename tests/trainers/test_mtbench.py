"""MT-Bench in FastChat's format: two turns, temperatures by category, and a killed call that continues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataloaders.sources.mtbench import TEMPERATURES
from prospect.config.schema import Config, DatasetConfig, Mode
from prospect.errors import UserError
from prospect.parallel import World
from prospect.sampling import generate
from prospect.sampling.samples import Partial
from tests import tiny
from tests.planted import plant
from trainers import mtbench
from trainers.eval_run import _WORKERS
from trainers.launch import train_in_process

QUESTIONS: list[dict[str, Any]] = [
    {"question_id": 81, "category": "writing", "turns": ["Write of the river.", "Write it again."]},
    {"question_id": 101, "category": "reasoning", "turns": ["Who is first?", "And then?"], "reference": ["a", "b"]},
    {"question_id": 111, "category": "math", "turns": ["One and two?", "Times seven?"]},
    {"question_id": 141, "category": "stem", "turns": ["What is a stone?", "Why?"]},
    {"question_id": "own", "category": "other", "turns": ["One turn only."]},
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mtbench")
    assert train_in_process(tiny.config(folder, n_examples=16), World()) == 0
    return folder


def config(trained: Path, folder: Path, rows: list[dict[str, Any]] | None = None, **changes: Any) -> Config:
    file = folder / "question.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows or QUESTIONS))
    settings: dict[str, Any] = {
        "mode": Mode.mtbench,
        "samples_dir": str(folder / "samples"),
        "max_new_tokens": 5,
    } | changes
    made = tiny.config(trained, **settings)
    made.datasets["mtbench"] = DatasetConfig(source="mtbench", path=str(file))
    return made


def answers(made: Config) -> list[dict[str, Any]]:
    assert _WORKERS[Mode.mtbench](made, World()) == 0
    file = Path(made.samples_dir) / "mt_bench" / "model_answer" / "sft.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def turns(found: list[dict[str, Any]]) -> list[list[list[str]]]:
    return [[choice["turns"] for choice in line["choices"]] for line in found]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, float, int]]:
    """What was sampled: question and choice, turn, temperature, length of the prompt."""
    seen: list[tuple[str, int, float, int]] = []
    original = generate.sample

    def watched(model, chat, tasks, settings):
        seen.extend((t.prompt_id, t.sample, settings.temperature, len(t.prompt_ids)) for t in tasks)
        return original(model, chat, tasks, settings)

    monkeypatch.setattr(mtbench, "sample", watched)
    return seen


def test_the_format(trained: Path, tmp_path: Path) -> None:
    found = answers(config(trained, tmp_path))
    assert [line["question_id"] for line in found] == [81, 101, 111, 141, "own"]
    for line, question in zip(found, QUESTIONS, strict=True):
        assert list(line) == ["question_id", "answer_id", "model_id", "choices", "tstamp"]
        assert [choice["index"] for choice in line["choices"]] == [0]
        assert [len(choice["turns"]) for choice in line["choices"]] == [len(question["turns"])]
        assert line["model_id"] == "sft"
        assert isinstance(line["tstamp"], float)
    assert len({line["answer_id"] for line in found}) == len(found)


def test_each_category_has_fastchats_temperature(trained: Path, tmp_path: Path, asked: Any) -> None:
    rows = [*QUESTIONS, {"question_id": 7, "category": "writing", "turns": ["x"], "required_temperature": 0.3}]
    answers(config(trained, tmp_path, rows, temperature=0.9))
    by_question = {key: temperature for key, _, temperature, _ in asked}
    assert by_question == {"81/0": 0.7, "101/0": 0.0, "111/0": 0.0, "141/0": 0.1, "own/0": 0.9, "7/0": 0.3}
    assert TEMPERATURES["humanities"] == 0.1
    asked.clear()
    answers(config(trained, tmp_path, category_temperatures={"math": 0.5}))
    assert {key: temperature for key, _, temperature, _ in asked}["111/0"] == 0.5


def second_prompts(made: Config) -> dict[str, str]:
    seen: dict[str, str] = {}
    add = Partial.add

    def watched(self, samples):
        rows = list(samples)
        seen.update({row.prompt_id: row.prompt for row in rows if row.sample == 1})
        add(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Partial, "add", watched)
        answers(made)
    return seen


def test_the_second_prompt_holds_the_first_answer(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(trained, tmp_path)

    def holds() -> bool:
        prompts = second_prompts(made)
        first = {f"{line['question_id']}/0": line["choices"][0]["turns"][0] for line in answers(made)}
        expected = {
            key: f"{q['turns'][0]}\n<|assistant|>\n{first[key]}\n<|user|>\n{q['turns'][1]}"
            for q in QUESTIONS[:4]
            if (key := f"{q['question_id']}/0")
        }
        return all(text in prompts[key] for key, text in expected.items())

    assert holds()
    plant(monkeypatch, mtbench.Chat.upto, "done[self.id, number].policy", '"" + chr(32)')
    assert not holds()


def test_choices(trained: Path, tmp_path: Path) -> None:
    found = turns(answers(config(trained, tmp_path, samples_per_prompt=2)))
    assert all(len(choices) == 2 for choices in found)
    assert found[0][0] != found[0][1]  # drawn
    assert found[1][0] == found[1][1]  # temperature 0


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_killed_call_continues(
    trained: Path, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch, asked: Any
) -> None:
    wanted = turns(answers(config(trained, tmp_path, samples_dir=str(tmp_path / "whole"), eval_batch_size=2)))
    once = len(asked)
    asked.clear()
    add, calls = Partial.add, [0]

    def killed(self, samples):
        add(self, samples)
        calls[0] += 1
        if calls[0] == stop:
            raise KeyboardInterrupt

    made = config(trained, tmp_path, eval_batch_size=2)
    monkeypatch.setattr(Partial, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        answers(made)
    monkeypatch.setattr(Partial, "add", add)
    first = len(asked)
    assert turns(answers(made)) == wanted
    assert first < once
    assert len(asked) - first < once  # what was there is not asked again
    assert list((tmp_path / "samples" / "mt_bench" / "model_answer").glob(".*")) == []


def test_answers_of_other_settings_are_moved_aside(trained: Path, tmp_path: Path) -> None:
    answers(config(trained, tmp_path))
    answers(config(trained, tmp_path))
    folder = tmp_path / "samples" / "mt_bench" / "model_answer"
    assert len(list(folder.iterdir())) == 1
    answers(config(trained, tmp_path, seed=2))
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"question_id": 1, "category": "x", "turns": []}, r"question.jsonl:1: `turns` is no list of texts"),
        ({"question_id": None, "category": "x", "turns": ["a"]}, r"question.jsonl:1: no `question_id`"),
        ({"question_id": 1, "category": "x"}, r"no column `turns`"),
        ({"question_id": 1, "category": "x", "turns": ["a"], "required_temperature": "b"}, "write a number"),
    ],
)
def test_what_is_wrong_with_a_question(trained: Path, tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        answers(config(trained, tmp_path, [row]))
    with pytest.raises(UserError, match="question_id 81 stands there twice"):
        answers(config(trained, tmp_path, [QUESTIONS[0], QUESTIONS[0]]))


def test_no_file_is_an_error(trained: Path) -> None:
    with pytest.raises(UserError, match=r"datasets.mtbench.path: names no file to read"):
        answers(tiny.config(trained, mode=Mode.mtbench))
