"""Stored models are read with all of their weights, or not at all; their code is run only on request."""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from prospect.checkpoint.origin import Origin
from prospect.errors import MachineError, UserError
from prospect.model import pretrained as reading
from prospect.model.export import save_policy
from prospect.model.load import load_model, load_tokenizer
from prospect.model.pretrained import ADDED, Differences, pretrained, read_model, read_state
from prospect.model.score import RewardModel
from prospect.model.value_head import FILE, ValueHead
from tests import tiny
from tests.model.formats import chat
from tests.model.shapes import build
from tests.model.strange import shape, strange_model
from tests.planted import plant

ROOMS = ("prospect", "dataloaders", "trainers")
State = dict[str, Tensor]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A language model of two layers with its tokenizer."""
    format_, folder = chat("chatml"), tmp_path / "stored"
    save_policy(build("qwen3"), format_.tokenizer, format_.stop_ids, tiny.config(tmp_path), folder)
    return folder


def edit(folder: Path, change: Callable[[State], State]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def renamed(state: State) -> State:
    return {name.replace("layers.1.mlp.up_proj", "layers.1.mlp.upper"): tensor for name, tensor in state.items()}


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a renamed tensor": (
        lambda folder: edit(folder, renamed),
        "missing: model.layers.1.mlp.up_proj.weight; not the model's: model.layers.1.mlp.upper.weight",
    ),
    "fewer layers than the file has": (
        lambda folder: shape(folder, num_hidden_layers=1, layer_types=["full_attention"]),
        "not the model's: model.layers.1.input_layernorm.weight, ",
    ),
    "more layers than the file has": (
        lambda folder: shape(folder, num_hidden_layers=4, layer_types=["full_attention"] * 4),
        "missing: model.layers.{2,3}.input_layernorm.weight, ",
    ),
    "a wider model": (
        lambda folder: shape(folder, intermediate_size=64),
        "model.layers.0.mlp.down_proj.weight is [32, 48] and must be [32, 64]; ",
    ),
    "no output layer": (
        lambda folder: edit(folder, lambda state: {n: t for n, t in state.items() if n != "lm_head.weight"}),
        "missing: lm_head.weight",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_do_not_fit_are_named(stored: Path, tmp_path: Path, fault: str) -> None:
    damage, line = FAULTS[fault]
    damage(stored)
    made = tiny.config(tmp_path, name_or_path=str(stored), max_length=100, max_prompt_length=50)
    tokenizer = load_tokenizer(made.model, None, lambda size: pytest.fail("a tokenizer was trained"))
    for origin in (None, Origin(stored, is_state_dict=False)):
        with pytest.raises(UserError) as error:
            load_model(made, origin, tokenizer, "sdpa")
        assert str(error.value).startswith(f"model: the weights of {stored} do not fit its config.json (Qwen3ForCausal")
        assert line in str(error.value)
        assert "\n" not in str(error.value)


def test_planted_trust_in_what_transformers_makes_up_is_seen(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, read_model, 'tuple(info["missing_keys"])', "()")
    edit(stored, lambda state: {name: tensor for name, tensor in state.items() if name != "lm_head.weight"})
    read_model(AutoModelForCausalLM, str(stored), trust=False)  # its output layer is drawn at random


def test_what_belongs_there_is_not_missing(tmp_path: Path) -> None:
    """A tied output layer stands in the file once; angles of rotary positions are computed, and were stored once."""
    tied = build("llama")
    tied.save_pretrained(tmp_path)
    old = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)}
    edit(tmp_path, lambda state: state | old)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    read_model(AutoModelForCausalLM, str(tmp_path), trust=False)
    torch.save({"state": load_file(tmp_path / "model.safetensors")}, tmp_path / "policy.pt")
    other = build("llama")
    for p in other.parameters():
        torch.nn.init.zeros_(p)
    read_state(other, tmp_path / "policy.pt")
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), tied.parameters(), strict=True))


def test_an_old_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    state: State = build("llama").state_dict()
    torch.save({"state": state | {"model.norm.weight": torch.ones(7)}}, tmp_path / "policy.pt")
    with pytest.raises(UserError, match=r"than LlamaForCausalLM: model.norm.weight is \[7\] and must be \[32\]$"):
        read_state(build("llama"), tmp_path / "policy.pt")


def test_a_reward_model_without_its_score_layer_is_refused(stored: Path) -> None:
    """Its config.json says that it scores; a fresh layer would score at random."""
    shape(stored, architectures=["Qwen3ForSequenceClassification"], num_labels=1)
    edit(stored, lambda state: {name: tensor for name, tensor in state.items() if name != "lm_head.weight"})
    with pytest.raises(UserError, match=r"ForSequenceClassification\): missing: score.weight$"):
        RewardModel.load(stored, torch.device("cpu"))


def test_a_value_head_may_be_added_but_not_lost(tmp_path: Path) -> None:
    assert not ValueHead.of(4, tmp_path).weight.any()
    with pytest.raises(UserError, match=r"v_head.safetensors: missing: bias, weight$"):
        ValueHead.of(4, tmp_path, continues=True)
    ValueHead(6).save(tmp_path)
    with pytest.raises(UserError, match=r"weight is \[6\] and must be \[4\]$"):
        ValueHead.of(4, tmp_path)
    (tmp_path / FILE).write_bytes(b"\0" * 40)
    with pytest.raises(UserError, match=f"{FILE} could not be read"):
        ValueHead.of(4, tmp_path)
    assert [name for name, _ in ValueHead(4).named_parameters()] == list(ADDED["value"])


def test_many_names_are_one_line() -> None:
    names = tuple(f"model.layers.{i}.part{j}.weight" for i in range(40) for j in range(20))
    with pytest.raises(UserError) as error:
        Differences(missing=names).refuse("model: x")
    assert len(str(error.value)) < 3000
    assert str(error.value).endswith(" and 8 more")


# ---- code that comes with a model


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    return strange_model(tmp_path, monkeypatch)


@pytest.mark.parametrize("auto", [AutoConfig, AutoTokenizer, AutoModelForCausalLM, AutoModelForSequenceClassification])
def test_code_is_not_run_and_nobody_is_asked(strange: tuple[Path, Path], auto: Any) -> None:
    folder, canary = strange
    with pytest.raises(UserError, match=r"needs code of its own, which is run only on request: \+\+model\.trust"):
        pretrained(auto, str(folder), trust=False)
    assert not canary.exists()


def test_code_is_run_on_request_and_said(strange: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    folder, canary = strange
    reading._say_trusted.cache_clear()
    logging.getLogger("prospect").propagate = True
    with caplog.at_level("WARNING", logger="prospect"):
        model = read_model(AutoModelForCausalLM, str(folder), trust=True)
    assert isinstance(model, PreTrainedModel)
    assert canary.exists()
    assert caplog.messages == [
        f"trust_remote_code: Python code that comes with {folder} is run, with all rights of this user"
    ]


def test_a_pickle_is_not_run(tmp_path: Path, stored: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "canary",))

    (stored / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Payload()}, stored / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"holds a pickle with more in it than tensors; it is not read$"):
        read_model(AutoModelForCausalLM, str(stored), trust=False)
    assert not (tmp_path / "canary").exists()


def test_a_model_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MachineError, match="nowhere/at-all is neither a folder here nor to be had from the hub"):
        pretrained(AutoConfig, "nowhere/at-all", trust=False)


def calls(source: str) -> set[str]:
    """Calls in a module that read a model or a pickle, or make a model, without saying whether code may run."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        given = {word.arg for word in node.keywords}
        owner, name = ast.unparse(node.func.value), node.func.attr
        if name in ("from_pretrained", "from_config") and "trust_remote_code" not in given:
            found.add(f"{owner}.{name}")
        if (owner, name) == ("torch", "load") and "weights_only" not in given:
            found.add("torch.load")
    return found


NO_CODE = {"PeftModel.from_pretrained", "Stored.from_pretrained", "GenerationConfig.from_pretrained"}


def test_every_load_says_whether_code_may_run() -> None:
    files = [file for room in ROOMS for file in (tiny.CHECKOUT / room).rglob("*.py")]
    found = {call for file in files for call in calls(file.read_text())}
    assert found <= NO_CODE
    assert calls("auto.from_pretrained(name)\ntorch.load(file)") == {"auto.from_pretrained", "torch.load"}
