"""Loading: tokenizers of the weights, random models by seed, old policy files, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from prospect.checkpoint.origin import Origin, resolve
from prospect.config.schema import Config, DType
from prospect.errors import MachineError, UserError
from prospect.model.attention import NAME
from prospect.model.export import save_policy
from prospect.model.load import Precision, load_model, load_tokenizer, make_policy, train_tokenizer
from tests import tiny

CPU = torch.device("cpu")
TEXTS = ["red green blue", "apple pear plum", "some more words of several kinds"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(TEXTS, 300)


def made(folder: Path, **changes: Any) -> Config:
    return tiny.config(folder, **changes)


@pytest.fixture
def saved(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    """An earlier run's LATEST."""
    config = made(tmp_path, seed=9)
    save_policy(load_model(config, None, tokenizer, NAME), tokenizer, [0], config, tmp_path / "sft" / "LATEST")
    return tmp_path / "sft" / "LATEST"


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.reshape(-1) for p in model.parameters()])


def test_a_trained_tokenizer_writes_any_text(tokenizer: PreTrainedTokenizerBase) -> None:
    for text in ("red", "Ünï – 二 🙂", "\x00\t\n", "<|user|>\n"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    again = train_tokenizer(TEXTS, 300)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_random_weights_follow_the_seed(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    one, same, other = (load_model(made(tmp_path, seed=s), None, tokenizer, NAME) for s in (1, 1, 2))
    assert torch.equal(weights(one), weights(same))
    assert not torch.equal(weights(one), weights(other))
    assert one.config.eos_token_id == tokenizer.eos_token_id
    assert one.config._attn_implementation == NAME


def test_a_runs_folder_gives_weights_and_tokenizer(saved: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    config = made(saved.parents[1], load_from="sft")
    origin = resolve("sft", saved.parents[1])
    found = load_tokenizer(config.model, origin, lambda size: pytest.fail("a tokenizer was trained"))
    assert found.get_vocab() == tokenizer.get_vocab()
    model = load_model(config, origin, found, NAME)
    assert torch.equal(weights(model), weights(load_model(made(saved.parents[1], seed=9), None, tokenizer, NAME)))
    assert model.dtype == torch.float32


def test_name_or_path_takes_a_local_folder(saved: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    config = made(saved.parents[1], name_or_path=str(saved), architecture=None)
    assert load_tokenizer(config.model, None, partial(train_tokenizer, [])).get_vocab() == tokenizer.get_vocab()
    assert load_model(config, None, tokenizer, NAME).config.hidden_size == 32


def test_an_old_policy_file(tmp_path: Path, saved: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    state = AutoModelForCausalLM.from_pretrained(saved).state_dict()
    torch.save({"step_idx": 3, "state": state, "metrics": {}}, tmp_path / "policy.pt")
    model = load_model(made(tmp_path), Origin(tmp_path / "policy.pt", True), tokenizer, NAME)
    assert torch.equal(weights(model), weights(AutoModelForCausalLM.from_pretrained(saved)))


class Payload:
    """What a hostile file would run."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.canary,))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (lambda p: {"step_idx": 1}, "lacks 'state'"),
        (
            lambda p: {"state": {"x.weight": torch.ones(2)}},
            r"than LlamaForCausalLM: missing: model.embed_tokens.weight, .*; not the model's: x.weight",
        ),
        (lambda p: {"state": Payload(p / "canary")}, "is not a checkpoint that can be read safely"),
    ],
)
def test_a_wrong_policy_file_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, stored, message: str
) -> None:
    torch.save(stored(tmp_path), tmp_path / "policy.pt")
    with pytest.raises(UserError, match=message):
        load_model(made(tmp_path), Origin(tmp_path / "policy.pt", True), tokenizer, NAME)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"architecture": None}, UserError, "neither name_or_path nor architecture"),
        (
            {"architecture": tiny.SHAPE | {"vocab_size": 100}},
            UserError,
            "the tokenizer has 300 tokens, the embedding 100",
        ),
        ({"max_length": 4000}, UserError, "max_length: 4000 is beyond the model's 512 positions"),
        ({"name_or_path": "nowhere/at-all"}, MachineError, "nowhere/at-all is neither a folder here nor"),
    ],
)
def test_refusals(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerBase,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(error, match=message):
        load_model(made(tmp_path, **changes), None, tokenizer, NAME)


def test_a_folder_that_is_damaged_is_refused(saved: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    (saved / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes()[:500])
    with pytest.raises(UserError, match=f"{saved} could not be loaded"):
        load_model(made(saved.parents[1]), Origin(saved, False), tokenizer, NAME)


def test_dropout_is_off_everywhere(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """A step's two passes, the reference and the start check must see one and the same function."""
    shape = {"model_type": "gpt_neox", "hidden_dropout": 0.5, "attention_dropout": 0.5}
    config = made(tmp_path, architecture=tiny.SHAPE | shape)
    policy = make_policy(load_model(config, None, tokenizer, NAME), config, CPU)
    assert policy.model.training
    batch = tiny.packed([[3, 4, 5, 6, 7, 8]])
    assert torch.equal(policy.logps(batch).tokens, policy.logps(batch).tokens)
    assert policy.check_against_own_forward(batch) < 1e-4
    assert policy.model.training


def test_precision() -> None:
    assert Precision.of(None, CPU).autocast is None
    assert Precision.of(DType.float32, CPU).autocast is None
    assert Precision.of(DType.bfloat16, CPU).autocast is torch.bfloat16


@pytest.mark.parametrize(
    ("capability", "wanted", "compute", "said"),
    [
        ((9, 0), None, torch.bfloat16, "GPU (capability 9.0, 80 GiB), which has bfloat16"),
        ((8, 0), DType.float32, torch.float32, "GPU (capability 8.0, 80 GiB), dtype as configured"),
        ((7, 5), None, torch.float32, "too old for bfloat16; float16 would lose small gradients"),
        ((7, 5), DType.bfloat16, None, r"model.policy_dtype: GPU \(capability 7.5, 80 GiB\) has no bfloat16"),
    ],
)
def test_precision_by_what_a_gpu_can(
    capability: tuple[int, int],
    wanted: DType | None,
    compute: torch.dtype | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(name="GPU", total_memory=80 * 2**30)
    )
    if compute is None:
        with pytest.raises(MachineError, match=said):
            Precision.of(wanted, torch.device("cuda"))
        return
    found = Precision.of(wanted, torch.device("cuda"))
    assert found.compute == compute
    assert said in found.said


def test_a_policy_is_prepared_as_configured(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    config = made(tmp_path, policy_dtype=DType.bfloat16, reference_dtype=DType.float32, activation_checkpointing=True)
    trained = make_policy(load_model(config, None, tokenizer, NAME), config, CPU)
    assert (trained.autocast, trained.model.dtype) == (torch.bfloat16, torch.float32)
    assert trained.model.is_gradient_checkpointing
    frozen = make_policy(load_model(config, None, tokenizer, NAME), config, CPU, trained=False)
    assert frozen.autocast is None
    assert not frozen.model.training
    assert not frozen.model.is_gradient_checkpointing
