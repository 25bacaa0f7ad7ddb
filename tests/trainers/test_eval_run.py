"""Samples of prompts with tools: asked for with the trained ids, and carried along in OpenAI's form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prospect.config.schema import Config, DatasetConfig, Mode, Split
from prospect.feedback.answers import gather
from prospect.message_forms import read
from prospect.model.template import ChatFormat
from prospect.parallel import World
from tests import tiny
from tests.planted import plant
from trainers.eval_run import evaluate_run
from trainers.launch import train_in_process
from trainers.show_data import show_data

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": {"at": "river"}}}
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def rows() -> list[dict[str, Any]]:
    asked = [{"role": "user", "content": "where is the river?"}]
    called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    result = {"role": "tool", "name": "look", "tool_call_id": "c1", "content": "red stone"}
    answered = {"role": "assistant", "content": "it is red."}
    return [
        {"messages": [*asked, called], "tools": TOOLS},
        {"messages": [*asked, called, result, answered], "tools": TOOLS},
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("calls")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    (folder / "own.jinja").write_text(TEMPLATE)
    made = tiny.config(folder, n_examples=4, batch_size=2, chat_template=str(folder / "own.jinja"), max_length=400)
    made.model.max_prompt_length = 300
    made.datasets = {"files": DatasetConfig(path=str(folder / "rows.jsonl"), test_fraction=0.0)}
    made.eval_split = Split.train
    assert train_in_process(made, World()) == 0
    return replace(made, split=Split.train, max_new_tokens=4, samples_dir=str(folder / "samples"))


def sampled(made: Config) -> list[dict[str, Any]]:
    assert evaluate_run(replace(made, mode=Mode.sample)) == 0
    found: list[dict[str, Any]] = json.loads((Path(made.samples_dir) / "sft.json").read_text())["samples"]
    return sorted(found, key=lambda row: len(row["messages"]))


def test_samples_carry_tools_calls_and_results(trained: Config) -> None:
    first, second = sampled(trained)
    assert first["tools"] == second["tools"] == TOOLS
    assert second["messages"] == rows()[1]["messages"][:-1]
    assert first["chosen"] == '<call>{"name": "look", "arguments": {"at": "river"}}</call>'
    assert second["chosen"] == "it is red."
    (one, other), left_out = gather([Path(trained.samples_dir) / "sft.json"], ["policy", "chosen"])
    assert not left_out
    assert {one.turns, other.turns} == {read(row["messages"][:-1], row["tools"]) for row in rows()}


def test_sampling_asks_with_the_ids_that_were_trained(trained: Config) -> None:
    shown = replace(trained, mode=Mode.data, out=str(Path(trained.cache_dir) / "seen.jsonl"))
    assert show_data(shown) == 0
    prompts = {json.loads(line)["prompt"] for line in Path(str(shown.out)).read_text().splitlines()}
    assert {row["prompt"] for row in sampled(trained)} == prompts
    assert all('"name": "look"' in prompt for prompt in prompts)


def test_planted_loss_of_the_tools_is_seen(trained: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, ChatFormat._rendered, "json.loads(conversation.tools) if conversation.tools else None", "None")
    made = replace(trained, samples_dir=str(tmp_path))
    assert all('"name": "look", "parameters"' not in row["prompt"] for row in sampled(made))
