"""Judges on this machine: a language model's label weights, a reward model's scores."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PhiConfig, PhiForCausalLM

from prospect.conversation import Message, answered, asked
from prospect.errors import UserError
from prospect.judge import local
from prospect.judge.games import Game, schedule
from prospect.judge.judges import Answered, grade, judge
from prospect.judge.options import Asking, Options, Orders, parse
from prospect.judge.samples import Pair
from prospect.judge.stage import compare
from prospect.model import template
from prospect.model.attention import NAME
from prospect.model.export import save_policy
from prospect.model.load import train_tokenizer
from prospect.model.score import RewardModel, load_scorer
from prospect.model.template import ChatFormat
from tests import tiny
from tests.model.strange import strange_model
from tests.planted import plant

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<judge>"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, and an output bias that makes the labels 1 and 2 likely."""
    folder = tmp_path_factory.mktemp("judge")
    tokenizer = train_tokenizer(["Response 1 or Response 2 stands between lines"], 300)
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    model = PhiForCausalLM(PhiConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, **shape))
    with torch.no_grad():
        model.lm_head.weight.mul_(20.0)
        for label, bias in (("1", 12.0), ("2", 11.5)):
            model.lm_head.bias[tokenizer.convert_tokens_to_ids(label)] = bias
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def games(count: int = 11) -> list[Game]:
    pairs = [
        Pair(str(i), 0, f"Question {i}?", f"Policy {i} " + "word " * i, f"Chosen {i} " + "text " * (i % 4))
        for i in range(count)
    ]
    return schedule(pairs, Orders.both)


def asking(folder: Path, **more: Any) -> Asking:
    return Asking(judge=f"hf:{folder}", **more)


def share_alone(folder: Path, text: str) -> float:
    """By transformers alone, one game at a time."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])).logits[0, -1]
    weights = logits.double().softmax(0)
    first, second = (
        sum(float(w) for i, w in enumerate(weights) if str(tokenizer.decode([i])).strip(" .,:*\"'()") == label)
        for label in "12"
    )
    return float(first / (first + second))


def test_weights_are_the_models_own_in_any_batch(language_model, monkeypatch):
    texts: dict[Game, str] = {}
    plain = local.Weigher._text

    def kept(self: Any, prompt: Any, game: Game, labels: str) -> str:
        texts[game] = plain(self, prompt, game, labels)
        return texts[game]

    monkeypatch.setattr(local.Weigher, "_text", kept)
    judgments = judge(asking(language_model), games()).judgments
    assert len({judgment.share for judgment in judgments}) == len(judgments), "the texts make a difference"
    for judgment in judgments[::5]:
        assert judgment.share == pytest.approx(share_alone(language_model, texts[judgment.game]), abs=1e-5)
    assert all(judgment.outside is not None and judgment.outside < 0.5 for judgment in judgments)


def test_planted_bug_reading_at_the_padding_is_seen(language_model, monkeypatch):
    right = [judgment.share for judgment in judge(asking(language_model), games(4)).judgments]
    plant(monkeypatch, local.Weigher._first_token, "ends = mask.sum(1) - 1", "ends = 0 * mask.sum(1) + longest - 1")
    assert [judgment.share for judgment in judge(asking(language_model), games(4)).judgments] != pytest.approx(right)


def test_a_whole_comparison(language_model, tmp_path, capsys):
    rows = [{"prompt": f"Q{i}?", "chosen": f"No {i}.", "policy": f"Yes, {i}!"} for i in range(6)]
    (tmp_path / "s.json").write_text(json.dumps(rows))
    options = Options(tmp_path / "s.json", judge=f"hf:{language_model}", results=tmp_path / "r.jsonl")
    assert compare(options) == 0
    result = json.loads((tmp_path / "r.jsonl").read_text())
    assert result["read_from"] == {"weights": 12}
    assert result["spent"] is None
    assert 0 < result["win_rate"] < 1


def test_reward_model_compares_and_grades(tmp_path):
    tokenizer = train_tokenizer(["red green blue"], 300)
    template.install(tokenizer, tiny.config(tmp_path))
    chat = ChatFormat(tokenizer)
    model = load_scorer(tiny.config(tmp_path), None, tokenizer, chat.stop_ids, NAME)
    folder = tmp_path / "run" / "LATEST"
    save_policy(model, tokenizer, chat.stop_ids, tiny.config(tmp_path), folder)
    own = RewardModel.load(folder, CPU)
    many = games(5)
    session = judge(Asking(judge=f"rm:{tmp_path / 'run'}"), many)
    for judgment in session.judgments:
        talks = [asked(judgment.game.pair.conversation).then(answered(text)) for text in judgment.game.shown]
        assert judgment.scores == pytest.approx(tuple(own.scores(talks)), abs=1e-5)
        assert judgment.scores is not None
        assert (judgment.verdict == "first") == (judgment.scores[0] > judgment.scores[1])
    turns = asked("red?").then(answered("blue"), Message("user", "green?"))
    [score] = grade(Asking(judge=f"rm:{folder}"), [Answered("…", answered("red"), turns=turns)]).scores
    assert score == pytest.approx(own.scores([turns.then(answered("red"))])[0], abs=1e-5)
    with pytest.raises(UserError, match="a reward model is rm:DIR"):
        judge(Asking(judge=f"hf:{folder}"), many)


def test_mistakes(language_model, tmp_path):
    with pytest.raises(UserError, match="holds no model"):
        judge(Asking(judge=f"hf:{tmp_path}"), games(1))
    with pytest.raises(UserError, match="no sequence classifier"):
        judge(Asking(judge=f"rm:{language_model}"), games(1))
    long = [Game(Pair("p", 0, "Q", "word " * 9000, "a"), True)]
    with pytest.raises(UserError, match="the model reads 2048"):
        judge(asking(language_model), long)


@pytest.mark.parametrize("kind", ["hf", "rm"])
def test_code_that_comes_with_a_judge_is_run_on_request_only(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, canary = strange_model(tmp_path, monkeypatch)
    words = ["-f", "x.json", "-j", f"{kind}:{folder}"]

    def ask(options: Options) -> None:
        if kind == "hf":
            local.Weigher(options)
        else:
            local.reward(options, [])

    with pytest.raises(UserError, match=r"needs code of its own, which is run only on request: .*--trust-remote-code"):
        ask(parse(words))
    assert not canary.exists()
    with contextlib.suppress(UserError):  # it is no reward model
        ask(parse([*words, "--trust-remote-code"]))
    assert canary.exists()
