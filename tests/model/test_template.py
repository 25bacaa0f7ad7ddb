"""From messages to text and ids: one BOS at most, the end of turn trained, training and sampling the same ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from prospect.config.schema import Config
from prospect.conversation import answered, asked
from prospect.errors import UserError
from prospect.model.shield import Shield
from prospect.model.template import ChatFormat, install
from tests.model.formats import TEMPLATES, chat, talk, tokenizer
from tests.planted import plant

ALL = [*TEMPLATES, "archangel"]
TALK = talk(("user", "what is one and two?"), ("assistant", "it is three."), ("user", "red?"))
BLUE = answered("blue")
TURN_END = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "mistral": "<|endoftext|>", "thinking": "<|im_end|>"}


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_bos_stands_once_where_the_template_or_the_tokenizer_puts_it(name: str, adds_bos: bool) -> None:
    made = chat(name, adds_bos)
    prompt, answer, _ = made.encode_pair(made.render(TALK, BLUE))
    wanted = name in ("llama3", "mistral") or (name == "archangel" and adds_bos)
    assert (prompt + answer).count(made.tokenizer.bos_token_id) == wanted
    assert (prompt[0] == made.tokenizer.bos_token_id) == wanted


def test_planted_second_bos_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, Shield.encode, "(part, add_special_tokens=False)", "(part, add_special_tokens=True)")
    made = chat("llama3", adds_bos=True)
    prompt, _, _ = made.encode_pair(made.render(TALK, BLUE))
    assert prompt.count(made.tokenizer.bos_token_id) == 2


@pytest.mark.parametrize("name", ALL)
def test_the_last_trained_token_ends_the_turn(name: str) -> None:
    made = chat(name)
    _, answer, _ = made.encode_pair(made.render(TALK, BLUE))
    assert made.turn_end == TURN_END.get(name, made.turn_end)
    assert made.tokenizer.decode(answer[-1:]) == made.turn_end
    assert answer.count(answer[-1]) == 1
    assert answer[-1] in made.stop_ids
    assert made.tokenizer.eos_token_id in made.stop_ids


@pytest.mark.parametrize("name", ALL)
def test_training_sees_the_ids_that_sampling_gives(name: str) -> None:
    made = chat(name)
    prompt, answer, _ = made.encode_pair(made.render(TALK, BLUE))
    assert prompt == made.encode(made.prompt(TALK))
    assert str(made.tokenizer.decode(answer)).removesuffix(made.turn_end).endswith("blue")


def test_a_newline_after_the_end_of_turn_is_not_trained() -> None:
    made = chat("chatml")
    assert made.render(TALK, BLUE).answer == "blue<|im_end|>"


def test_planted_newline_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, ChatFormat._ended, "return rest[: min(whole, default=ends[0])]", "return rest")
    assert chat("chatml").render(TALK, BLUE).answer != "blue<|im_end|>"


@pytest.mark.parametrize("name", ALL)
def test_a_special_tokens_name_in_a_message_is_plain_text(name: str) -> None:
    made = chat(name)
    said = f"say {made.turn_end}<s> and <|endoftext|>"
    prompt, answer, _ = made.encode_pair(made.render(asked(said), answered(said)))
    silent = made.encode_pair(made.render(asked("x"), answered("x")))
    for ids, wanted in ((prompt, silent[0]), (answer, silent[1])):
        assert [i for i in ids if i in made.special] == [i for i in wanted if i in made.special]
        assert said in made.tokenizer.decode(ids)


def test_a_template_that_rewrites_the_prompt_is_taken_apart() -> None:
    made = chat("unstable")
    rendered = made.render(TALK, BLUE)
    assert rendered.apart
    assert rendered.prompt == made.prompt(TALK)
    assert "now: red?" in rendered.prompt
    assert rendered.answer == "blue<|im_end|>"
    assert not chat("thinking").render(TALK, BLUE).apart
    assert chat("thinking").render(TALK, BLUE).answer == "<think>\n\n</think>\n\nblue<|im_end|>"


def test_a_merge_across_the_boundary_is_taken_apart() -> None:
    made = chat("archangel", assistant_prefix="ans")
    rendered = made.render(asked("q"), answered("wers"))
    prompt, answer, apart = made.encode_pair(rendered)
    assert apart
    assert not rendered.apart
    assert (prompt, answer) == (made.encode(rendered.prompt), made.encode(rendered.answer))
    assert made.encode(rendered.prompt + rendered.answer) != prompt + answer


def test_archangel_is_as_published() -> None:
    made = chat("archangel")
    assert made.prompt(TALK) == (
        "\n<|user|>\nwhat is one and two?\n<|assistant|>\nit is three.\n<|user|>\nred?\n<|assistant|>\n"
    )
    assert made.render(TALK, BLUE).answer == "blue<|endoftext|>"
    assert chat("archangel", human_prefix='Q"\n: ', human_suffix="\n\n").prompt(asked("x")).startswith('Q"\n: x\n\n')


def test_words_in_braces_are_data() -> None:
    for name in ALL:
        assert "{{ 7 * 6 }} {% if %}" in chat(name).prompt(asked("{{ 7 * 6 }} {% if %}"))


def test_which_template_is_said(tmp_path: Path) -> None:
    made = tokenizer()
    assert install(made, Config()) == "the Archangel chat template"
    made.chat_template = TEMPLATES["chatml"]
    assert install(made, Config()) == "the model's own chat template"
    assert made.chat_template == TEMPLATES["chatml"]
    assert install(made, Config(chat_template="archangel")) == "the Archangel chat template"
    file = tmp_path / "own.jinja"
    file.write_text(TEMPLATES["llama3"])
    assert install(made, Config(chat_template=str(file))) == f"chat template of {file}"
    assert made.chat_template == TEMPLATES["llama3"]


def test_a_missing_template_file_and_a_missing_eos_are_refused() -> None:
    with pytest.raises(UserError, match=r"chat_template: no such file nowhere.jinja"):
        install(tokenizer(), Config(chat_template="nowhere.jinja"))
    made = tokenizer()
    made.eos_token = None
    with pytest.raises(UserError, match="no end-of-sequence token"):
        install(made, Config())


def test_a_template_that_refuses_a_role_is_named_with_the_turns() -> None:
    made = tokenizer()
    made.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(UserError, match=r"chat_template: refuses this conversation.*no system role.*system: be brief"):
        ChatFormat(made).prompt(talk(("system", "be brief"), ("user", "x")))


def test_the_digest_follows_template_and_vocabulary() -> None:
    base = chat("chatml").digest_parts()
    assert base == chat("chatml").digest_parts()
    assert base != chat("llama3").digest_parts()
    assert base != chat("chatml", adds_bos=True).digest_parts()
