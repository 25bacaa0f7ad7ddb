"""Merging: the folder that is written computes what the model and its adapter do, or nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft.tuners.lora.layer import Linear
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from prospect.checkpoint.lineage import Base
from prospect.config.schema import Config, DatasetConfig, LossConfig, ModelConfig
from prospect.errors import UserError
from prospect.model.adapter import put_back, quantize
from prospect.model.export import save_policy
from prospect.model.load import load_base
from prospect.model.merge import TOLERANCE, merge
from tests.model.formats import chat
from tests.model.shapes import build
from tests.model.test_adapter import KINDS, policy, trained
from tests.planted import plant

CPU = torch.device("cpu")
FORMAT = chat("chatml")
TOKENIZER, STOPS = FORMAT.tokenizer, FORMAT.stop_ids
CONFIG = Config(loss=LossConfig(name="dpo"), datasets={"hh": DatasetConfig()}, exp_name="run", model=ModelConfig())


def saved(folder: Path, kind: str, shape: str = "llama") -> tuple[Config, Path]:
    """A base and a trained adapter on it."""
    config = replace(CONFIG, cache_dir=str(folder))
    save_policy(build(shape), TOKENIZER, STOPS, config, folder / "base")
    made = trained(policy(KINDS[kind], shape))
    assert made.adapter is not None
    bits = KINDS[kind].quantization
    made.adapter = replace(made.adapter, base=replace(Base.of_folder(folder / "base", folder), quantization=bits))
    save_policy(made.model, TOKENIZER, STOPS, config, folder / "adapter", made.adapter)
    return config, folder / "adapter"


def merged(config: Config, adapter: Path, target: Path) -> float:
    return merge(config, adapter, TOKENIZER, STOPS, target)


@torch.no_grad()
def continued(model: PreTrainedModel) -> torch.Tensor:
    """64 tokens, each the likeliest."""
    ids = torch.tensor([[3, 4, 5]])
    for _ in range(64):
        ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_folder_computes_the_same(kind: str, tmp_path: Path) -> None:
    config, adapter = saved(tmp_path, kind)
    assert merged(config, adapter, tmp_path / "whole") <= 2 * TOLERANCE  # the largest logits are above 2
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    base = build("llama", "sdpa")
    if KINDS[kind].quantization:
        quantize(base, KINDS[kind], torch.float32, CPU)
    put_back(base, adapter, Base("base"), trained=False)
    assert torch.equal(continued(whole), continued(base.eval()))
    assert not torch.equal(continued(whole), continued(build("llama", "sdpa")))
    assert AutoTokenizer.from_pretrained(tmp_path / "whole").chat_template == TOKENIZER.chat_template


def test_a_wrong_merge_is_refused_before_anything_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, adapter = saved(tmp_path, "lora")
    merged(config, adapter, tmp_path / "whole")
    before = {p: p.read_bytes() for p in (tmp_path / "whole").iterdir()}
    plant(monkeypatch, Linear.get_delta_weight, "* self.scaling[adapter]", "")
    with pytest.raises(UserError, match=r"it is another model \(a logit differs by .*\); .*whole is left as it was"):
        merged(config, adapter, tmp_path / "whole")
    assert {p: p.read_bytes() for p in (tmp_path / "whole").iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "base", "whole"]


def test_bits_that_are_forgotten_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model under a QLoRA adapter is what 4 bits leave of its base."""
    config, adapter = saved(tmp_path, "qlora")
    merged(config, adapter, tmp_path / "whole")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    right = continued(whole)
    plant(monkeypatch, load_base, "base.quantization is not None", "False")
    merged(config, adapter, tmp_path / "wrong")
    wrong = AutoModelForCausalLM.from_pretrained(tmp_path / "wrong")
    assert not torch.equal(continued(wrong), right)


def test_other_programs_load_the_adapter_too(tmp_path: Path) -> None:
    _, adapter = saved(tmp_path, "lora")
    theirs = AutoModelForCausalLM.from_pretrained(adapter)
    base = build("llama", "sdpa")
    put_back(base, adapter, Base("base"), trained=False)
    assert torch.equal(continued(theirs), continued(base.eval()))
