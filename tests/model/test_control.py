"""Control tokens: new rows of the embedding, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prospect.conversation import answered, asked
from prospect.errors import UserError
from prospect.model.control import ControlTokens, add_control_rows, add_control_tokens, control_ids
from prospect.model.template import ChatFormat
from tests.model.formats import TEMPLATES, tokenizer
from tests.planted import plant

CONTROL = ControlTokens("<|good|>", "<|bad|>")


def model(rows: int, tied: bool = True) -> PreTrainedModel:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=rows,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(shape)


def grown(rows: int, tied: bool = True, seed: int = 1) -> PreTrainedModel:
    made, words = model(rows, tied), tokenizer()
    add_control_tokens(words, CONTROL)
    add_control_rows(made, words, CONTROL, seed)
    return made


def tables(made: PreTrainedModel) -> list[torch.Tensor]:
    return [made.get_input_embeddings().weight, made.get_output_embeddings().weight]


WORDS = len(tokenizer())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 1, 50])
def test_the_known_vocabulary_stays_and_two_rows_are_drawn(spare: int, tied: bool) -> None:
    before, after = model(WORDS + spare, tied), grown(WORDS + spare, tied)
    for old, new in zip(tables(before), tables(after), strict=True):
        assert len(new) == max(WORDS + spare, WORDS + 2)
        assert torch.equal(old[:WORDS], new[:WORDS])
        assert torch.equal(old[WORDS + 2 :], new[WORDS + 2 :])
        mean, drawn = old[:WORDS].mean(0), new[WORDS : WORDS + 2]
        assert (drawn - mean).abs().max() < 0.5 * old[:WORDS].std(0).max()  # near the mean, and yet two
        assert not torch.equal(drawn[0], drawn[1])
    assert after.config.vocab_size == len(tables(after)[0])
    assert (tables(after)[0] is tables(after)[1]) == tied


def test_rows_follow_from_the_seed() -> None:
    one, same, other = (tables(grown(WORDS, seed=seed))[0][WORDS:] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("spare", [0, 50])
def test_learned_rows_are_never_drawn_anew(spare: int, tmp_path: Path) -> None:
    made, words = grown(WORDS + spare), tokenizer()
    add_control_tokens(words, CONTROL)
    with torch.no_grad():
        tables(made)[0][WORDS:] += 1  # training
    made.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    again, loaded = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert control_ids(loaded, CONTROL) == [WORDS, WORDS + 1]
    add_control_tokens(loaded, CONTROL)
    assert len(loaded) == WORDS + 2
    assert loaded.all_special_tokens.count("<|good|>") == 1
    assert ChatFormat(with_template(loaded), CONTROL).digest_parts() == (
        ChatFormat(with_template(words), CONTROL).digest_parts()
    )
    add_control_rows(again, loaded, CONTROL, seed=9)
    assert torch.equal(tables(again)[0], tables(made)[0])


def test_drawing_learned_rows_anew_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, add_control_rows, "if learned.get(name) != i", "")
    with pytest.raises(AssertionError):
        test_learned_rows_are_never_drawn_anew(0, tmp_path)


def with_template(words: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    words.chat_template = TEMPLATES["chatml"]
    return words


def test_other_control_tokens_join_the_learned_ones() -> None:
    made, words, others = grown(WORDS), tokenizer(), ControlTokens("<|a|>", "<|good|>")
    for control in (CONTROL, others):
        add_control_tokens(words, control)
    before = tables(made)[0].clone()
    add_control_rows(made, words, others, seed=1)
    assert torch.equal(tables(made)[0][: WORDS + 2], before)
    assert made.config.control_tokens == {"<|good|>": WORDS, "<|bad|>": WORDS + 1, "<|a|>": WORDS + 2}


def test_a_token_of_the_model_itself_is_refused() -> None:
    control, words = ControlTokens("<|im_start|>", "<|bad|>"), tokenizer()
    add_control_tokens(words, control)
    with pytest.raises(UserError, match=r"the control token <\|im_start\|> is a token that this model has already"):
        add_control_rows(model(WORDS), words, control, seed=1)


@pytest.mark.parametrize("names", [("<|x|>", "<|x|>"), ("", "<|x|>")])
def test_two_different_names_are_needed(names: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="must be two different names"):
        ControlTokens(*names)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_token_stands_between_prompt_and_answer(template: str) -> None:
    words = tokenizer()
    add_control_tokens(words, CONTROL)
    words.chat_template = TEMPLATES[template]
    plain, chat = ChatFormat(words), ChatFormat(words, CONTROL)
    turns = asked("what is <|good|>?")
    for desirable, name in ((True, "<|good|>"), (False, "<|bad|>")):
        before, after = plain.render(turns, answered("red")), chat.render(turns, answered("red"), desirable)
        assert (chat.plain(after.prompt), after.answer) == (before.prompt + name, before.answer)
        ids = chat.encode_pair(after)[0]
        token = words.convert_tokens_to_ids(name)
        assert ids[-1] == token
        assert ids.count(token) == 1, "a name in a message is text"
    assert chat.prompt(turns).endswith("<|good|>")
