"""Reward models: packed scores are those of transformers' own classifier, padded or not, before and after saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from dataloaders.packing import pack
from prospect.checkpoint.lineage import Base
from prospect.checkpoint.origin import Origin
from prospect.config.schema import Config, PeftConfig
from prospect.errors import UserError
from prospect.model import score, template
from prospect.model.adapter import put_on, reference_state, uncovered
from prospect.model.attention import NAME
from prospect.model.export import save_policy
from prospect.model.load import load_model, train_tokenizer
from prospect.model.score import RewardModel, ScorePolicy, load_scorer
from prospect.model.template import ChatFormat
from tests import tiny
from tests.model.formats import talk
from tests.model.shapes import SHAPES, build
from tests.model.test_policy import sequences
from tests.planted import plant

CPU = torch.device("cpu")
TEXTS = ["red green blue", "apple pear plum", "some more words of several kinds"]
TALKS = [
    talk(("user", "red?"), ("assistant", "green blue")),
    talk(("user", "apple pear plum? some more words"), ("assistant", "blue")),
    talk(
        ("user", "a"), ("assistant", "b"), ("user", "several kinds of red?"), ("assistant", "more words of plum " * 6)
    ),
]


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerBase:
    made = train_tokenizer(TEXTS, 300)
    template.install(made, tiny.config(tmp_path))
    return made


def scorer(folder: Path, tokenizer: PreTrainedTokenizerBase, origin: Origin | None = None) -> ScorePolicy:
    chat = ChatFormat(tokenizer)
    return ScorePolicy(load_scorer(tiny.config(folder), origin, tokenizer, chat.stop_ids, NAME), CPU)


def save(policy: ScorePolicy, tokenizer: PreTrainedTokenizerBase, config: Config, folder: Path) -> Path:
    save_policy(policy.model, tokenizer, ChatFormat(tokenizer).stop_ids, config, folder)
    return folder


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_transformers_gives_the_same_scores(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, side: str, pad_is_eos: bool
) -> None:
    if pad_is_eos:
        tokenizer.pad_token = tokenizer.eos_token
    policy = scorer(tmp_path, tokenizer)
    folder = save(policy, tokenizer, tiny.config(tmp_path), tmp_path / "rm")
    ours = RewardModel.load(folder, CPU)
    found = ours.scores(TALKS)
    assert found == pytest.approx(ours.scores(TALKS, tokens_at_once=1), abs=1e-6)
    assert len({round(x, 4) for x in found}) == 3
    theirs, loaded = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert theirs.config.num_labels == 1
    assert theirs.config.pad_token_id == loaded.pad_token_id != loaded.eos_token_id
    messages = [talk.rows() for talk in TALKS]
    loaded.padding_side = side
    with torch.no_grad():
        texts = [str(loaded.apply_chat_template(talk, tokenize=False)) for talk in messages]
        rows = loaded(texts, add_special_tokens=False).input_ids
        batch = loaded.pad({"input_ids": rows}, return_tensors="pt")
        padded = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.squeeze(-1)
        alone = [theirs(torch.tensor([row])).logits.item() for row in rows]
    assert found == pytest.approx(padded.tolist(), abs=1e-5)
    assert found == pytest.approx(alone, abs=1e-5)


def test_planted_score_at_another_token_is_seen(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = scorer(tmp_path, tokenizer)
    batch = pack(sequences())
    assert policy.check_against_own_forward(batch) < 1e-5
    plant(monkeypatch, ScorePolicy.at_ends, "offsets[1:] - 1", "offsets[1:] - 2")
    with pytest.raises(UserError, match="LlamaForSequenceClassification computes what packed attention"):
        policy.check_against_own_forward(batch)


@pytest.mark.parametrize("name", [name for name in SHAPES if name not in ("cohere", "granite")])
def test_every_architecture_scores_packed_as_alone(name: str) -> None:
    policy = ScorePolicy(score._with_fresh_layer(build(name), seed=1), CPU)
    assert policy.check_against_own_forward(pack(sequences())) < 1e-4
    assert policy.model.config._attn_implementation == NAME
    policy.scores(pack(sequences())).values.sum().backward()
    assert all(p.grad is not None for p in policy.parameters())


def test_an_architecture_without_a_classifier_is_refused() -> None:
    with pytest.raises(UserError, match="transformers has no sequence classifier for cohere models"):
        score._with_fresh_layer(build("cohere"), seed=1)


def test_it_starts_from_a_language_model(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    config = tiny.config(tmp_path, seed=9)
    language_model = load_model(config, None, tokenizer, NAME)
    save_policy(language_model, tokenizer, [0], config, tmp_path / "sft")
    origin = Origin(tmp_path / "sft", is_state_dict=False)
    one, same = scorer(tmp_path, tokenizer, origin), scorer(tmp_path, tokenizer, origin)
    body = zip(one.model.base_model.parameters(), language_model.base_model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in body)
    layers = [score._layer(x.model).weight for x in (one, same)]
    assert torch.equal(*layers)
    assert layers[0].std() > 0
    folder = save(one, tokenizer, config, tmp_path / "rm")
    again = scorer(tmp_path, tokenizer, Origin(folder, is_state_dict=False))  # a reward model keeps its layer
    assert torch.equal(score._layer(again.model).weight, layers[0])


def test_wrong_kinds_of_model_are_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    config = tiny.config(tmp_path)
    save_policy(load_model(config, None, tokenizer, NAME), tokenizer, [0], config, tmp_path / "sft")
    with pytest.raises(UserError, match=r"reward model: .*sft holds no sequence classifier"):
        RewardModel.load(tmp_path / "sft", CPU)
    folder = save(scorer(tmp_path, tokenizer), tokenizer, config, tmp_path / "rm")
    with pytest.raises(UserError, match="rm is a reward model: it scores answers and writes none"):
        load_model(config, Origin(folder, is_state_dict=False), tokenizer, NAME)


def test_without_any_token_to_pad_with_it_is_refused(tmp_path: Path) -> None:
    full = train_tokenizer(TEXTS, 300)
    full.pad_token = full.eos_token
    full.add_tokens([f"word{i}" for i in range(320 - len(full))])
    model = score._with_fresh_layer(load_model(tiny.config(tmp_path), None, full, NAME), seed=1)
    vocabulary = [name for name in full.get_added_vocab() if "pad" in name]
    assert vocabulary == ["<|pad|>"]  # it is still there, only not used
    score._settle_padding(model, full, [0])
    assert full.pad_token == "<|pad|>"
    with pytest.raises(UserError, match="the tokenizer has no padding token but the one that ends an answer"):
        score._settle_padding(model, full, [0, full.get_vocab()["<|pad|>"]])


def trained(policy: ScorePolicy) -> set[str]:
    """The parameters beside LoRA's that a step would move."""
    policy.scores(pack(sequences())).values.square().sum().backward()
    moved = {name for name, p in policy.model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert any("lora_" in name for name in moved)
    return {name for name in moved if "lora_" not in name}


def test_an_adapter_trains_the_output_layer_too(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = scorer(tmp_path, tokenizer)
    model: Any = policy.model
    before, own = policy.scores(pack(sequences())).values, model.score.weight
    policy.adapter = put_on(model, PeftConfig(r=4), Base("base"), scores=True)
    assert trained(policy) == {"score.modules_to_save.default.weight"}
    assert torch.equal(policy.scores(pack(sequences())).values, before)
    assert set(reference_state(model.state_dict())) == set(scorer(tmp_path, tokenizer).model.state_dict())
    own.data.mul_(2)  # what the adapter leaves as it was
    assert torch.equal(policy.scores(pack(sequences())).values, before)
    plant(monkeypatch, uncovered, "cover.modules_to_save[_OURS]", "cover.original_module")
    model.zero_grad()
    assert trained(policy) == set()
