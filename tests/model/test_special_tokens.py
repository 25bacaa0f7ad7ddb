"""A message that contains the name of a special token is text: it must neither end a turn nor begin one."""

from __future__ import annotations

import pytest

from prospect.config.schema import Config
from prospect.conversation import answered, asked
from prospect.errors import UnwrittenError
from prospect.model import template
from prospect.model.load import train_tokenizer
from prospect.model.shield import Shield
from prospect.model.template import ChatFormat
from tests.planted import plant


@pytest.fixture
def chat() -> ChatFormat:
    tokenizer = train_tokenizer(["what is <|endoftext|> for?", "it ends a text"], 300)
    template.install(tokenizer, Config())
    return ChatFormat(tokenizer)


QUESTION = asked("what is <|endoftext|> for?")


def ends(chat: ChatFormat) -> tuple[int, int]:
    """How often the end token stands in the prompt's and in the answer's ids."""
    prompt, answer, apart = chat.encode_pair(chat.render(QUESTION, answered("<|endoftext|> ends a text")))
    assert not apart
    assert chat.plain(str(chat.tokenizer.decode(prompt))) == "\n<|user|>\nwhat is <|endoftext|> for?\n<|assistant|>\n"
    assert chat.tokenizer.decode(answer) == "<|endoftext|> ends a text<|endoftext|>"
    return prompt.count(chat.tokenizer.eos_token_id), answer.count(chat.tokenizer.eos_token_id)


def test_names_of_special_tokens_are_text(chat: ChatFormat) -> None:
    assert ends(chat) == (0, 1)  # the one that the template wrote


def test_a_planted_bug_is_seen(chat: ChatFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, Shield.put, "self._any.sub", "(lambda mark, text: text)")
    with pytest.raises(UnwrittenError):  # the spelled token ends the answer before it has begun
        ends(chat)
