"""A model that comes with Python code of its own, and the trace that this code leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prospect.model.export import save_policy
from tests import tiny
from tests.model.formats import chat
from tests.model.shapes import build

OWN_CODE = """
from pathlib import Path
Path({canary!r}).touch()
from transformers import {bases}
class Config(LlamaConfig):
    model_type = "stranger"
class Model(LlamaForCausalLM):
    config_class = Config
class Scorer(LlamaForSequenceClassification):
    config_class = Config
class Tokens(PreTrainedTokenizerFast):
    pass
"""
BASES = "LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast"


def shape(folder: Path, **changes: Any) -> None:
    """Change a model's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def strange_model(place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder that names code of its own for all that it is, and the file which that code would write.

    Nobody may be asked on the terminal.
    """
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("it asks on the terminal"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(place / "modules"))
    folder, canary, format_ = place / "strange", place / "canary", chat("chatml")
    save_policy(build("llama"), format_.tokenizer, format_.stop_ids, tiny.config(place), folder)
    (folder / "own.py").write_text(OWN_CODE.format(canary=str(canary), bases=BASES))
    autos = {"AutoConfig": "Config", "AutoModelForCausalLM": "Model", "AutoModelForSequenceClassification": "Scorer"}
    shape(folder, model_type="stranger", auto_map={auto: f"own.{name}" for auto, name in autos.items()})
    tokens = folder / "tokenizer_config.json"
    named = {"tokenizer_class": "Tokens", "auto_map": {"AutoTokenizer": [None, "own.Tokens"]}}
    tokens.write_text(json.dumps(json.loads(tokens.read_text()) | named))
    return folder, canary
