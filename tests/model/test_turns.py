"""What a conversation holds beside text, and what templates do with it: reasoning, calls, tools, parts, dates."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from prospect.conversation import Call, Conversation, Message, answered, asked
from prospect.errors import RefusedError, UnwrittenError, UserError
from prospect.model import turn_marks
from prospect.model.shield import Shield, token_id
from prospect.model.template import ChatFormat, doubts
from prospect.model.turn_marks import special_tokens
from tests.model.formats import TEMPLATES, talk, tokenizer
from tests.planted import plant

TOOLS = '[{"type": "function", "function": {"name": "weather", "parameters": {}}}]'
CALL = Message("assistant", "", calls=(Call("weather", '{"city": "Paris"}', "c1"),))

LEFT_OUT = "conversation in which the chat template leaves out the content of a {} turn"

TOOL_USE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>"
    "{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PHI = (  # EOS after the last turn, whoever speaks it
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
ALWAYS_OPEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>' }}{{ 'assistant\n' }}"
)
R1 = (  # opens reasoning for sampling, and cuts it out of every answer
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>{{ m.content }}{% else %}<|eot_id|>"
    "{{ m.content.split('</think>')[-1] }}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|eot_id|><think>\n{% endif %}"
)
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{% if part.type == 'text' %}"
    "{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DATED = "<|im_start|>system\nToday is {{ strftime_now('%d %B %Y') }}<|im_end|>\n" + TEMPLATES["chatml"]


def chat(template: str, *added: AddedToken, **options: Any) -> ChatFormat:
    made = tokenizer()
    made.backend_tokenizer.add_tokens(list(added))
    made.chat_template = template
    return ChatFormat(made, **options)


def special(name: str) -> AddedToken:
    return AddedToken(name, special=True, normalized=False)


PHI_MARKS = [special(name) for name in ("<|user|>", "<|assistant|>", "<|end|>")]


def trained(made: ChatFormat, conversation: Conversation, answer: Message) -> str:
    """The text of the trained tokens."""
    return str(made.tokenizer.decode(made.encode_pair(made.render(conversation, answer))[1]))


# ---- where an answer ends


def test_what_follows_the_first_end_of_turn_is_not_trained() -> None:
    assert trained(chat(PHI, *PHI_MARKS), asked("red?"), answered("blue")) == "blue<|end|>"
    assert trained(chat(ALWAYS_OPEN), asked("red?"), answered("blue")) == "blue<|im_end|>"
    assert chat(ALWAYS_OPEN).turn_end == "<|im_end|>"


def test_the_last_mark_that_closes_an_answer_ends_it() -> None:
    template = TEMPLATES["chatml"].replace("{{ m['content'] }}", "{{ m['content'] }}<|eot_id|>")
    assert trained(chat(template), asked("red?"), answered("blue")) == "blue<|eot_id|><|im_end|>"


def test_an_answer_that_reads_like_a_piece_of_a_mark_ends_once() -> None:
    for word in ("im", "end", "x", "|"):
        assert trained(chat(TEMPLATES["chatml"]), asked("red?"), answered(word)) == f"{word}<|im_end|>"


def test_tokens_that_only_tokenizer_json_calls_special_are_special() -> None:
    made = chat(PHI, *PHI_MARKS)
    assert "<|end|>" not in made.tokenizer.all_special_tokens
    assert special_tokens(made.tokenizer)["<|end|>"] in made.stop_ids
    assert made.encode(made.prompt(asked("say <|end|> to me"))).count(made.stop_ids[-1]) == 1


def test_planted_blindness_to_them_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, special_tokens, "if token.special", "if False")
    made = chat(PHI.replace("|{{ m.role }}|", "x"), *PHI_MARKS)
    made.special = set(made.tokenizer.all_special_ids)
    assert "<|end|>" not in special_tokens(made.tokenizer)


def test_further_stop_tokens_of_a_model_stop_and_are_shielded() -> None:
    made = chat(TEMPLATES["chatml"], stops=[tokenizer().convert_tokens_to_ids("<|eot_id|>")])
    eot = made.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert eot in made.stop_ids
    assert eot not in made.encode(made.prompt(asked("<|eot_id|>")))


def test_a_call_that_the_template_leaves_open_ends_with_its_last_mark() -> None:
    template = TOOL_USE.replace(
        "<|im_end|>\n{% endfor %}", "{% if m.tool_calls %}<|eot_id|>{% else %}<|im_end|>\n{% endif %}{% endfor %}"
    )
    made = chat(template)
    assert trained(made, asked("Paris?"), CALL).endswith("</call><|eot_id|>")
    assert trained(made, asked("Paris?"), answered("blue")) == "blue<|im_end|>"
    assert {made.tokenizer.convert_tokens_to_ids(x) for x in ("<|eot_id|>", "<|im_end|>")} <= set(made.stop_ids)


# ---- reasoning


def test_what_the_prompt_has_opened_is_taken_from_the_answer() -> None:
    made, thought = chat(R1), "<think>\nfirst\n</think>\n\nblue"
    assert made.prompt(asked("red?")).endswith("<|eot_id|><think>\n")
    for answer in (answered(thought), Message("assistant", "blue", reasoning="first"), answered(thought[8:])):
        rendered = made.render(asked("red?"), answer)
        assert (rendered.answer, rendered.notes) == ("first\n</think>\n\nblue<|im_end|>", ())


def test_an_answer_without_reasoning_there_closes_it_and_is_said() -> None:
    rendered = chat(R1).render(asked("red?"), answered("blue"))
    assert rendered.answer == "\n</think>\n\nblue<|im_end|>"
    assert "without reasoning" in rendered.notes[0]


def test_an_opening_that_the_template_doubles_is_trained_once() -> None:
    template = TEMPLATES["chatml"] + "{% if add_generation_prompt %}<think>\n{% endif %}"
    template = template.replace(
        "<|im_start|>{{ m['role'] }}\n{{",
        "<|im_start|>{{ m['role'] }}\n{% if m.role == 'assistant' %}<think>\n{% endif %}{{",
    )
    assert (
        chat(template).render(asked("red?"), answered("<think>\na\n</think>\n\nblue")).answer
        == "a\n</think>\n\nblue<|im_end|>"
    )


def test_reasoning_behind_a_prompt_that_closes_it_is_left_out_and_said() -> None:
    template = TEMPLATES["chatml"].replace(
        "{{ m['content'] }}",
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m['content'] }}",
    )
    made = chat(template + "{% if add_generation_prompt %}<think>\n\n</think>\n\n{% endif %}")
    rendered = made.render(asked("red?"), Message("assistant", "blue", reasoning="first"))
    assert rendered.answer == "blue<|im_end|>"
    assert "reasoning" in rendered.notes[0]


def test_reasoning_that_a_template_does_not_know_is_said() -> None:
    rendered = chat(TEMPLATES["chatml"]).render(asked("red?"), Message("assistant", "blue", reasoning="first"))
    assert rendered.notes == ("answer whose reasoning the chat template leaves out",)


def test_a_thought_that_speaks_of_marks_and_an_answer_that_quotes_them_are_whole() -> None:
    """The template cuts at every closing mark; what sampling would give is put together from the row."""
    made = chat(R1)
    speaks = answered("<think>\nan <think> tag\n</think>\n\nIt is a tag.")
    assert made.render(asked("?"), speaks).answer == "an <think> tag\n</think>\n\nIt is a tag.<|im_end|>"
    quotes = Message("assistant", "Write <think>x</think> there.", reasoning="easy")
    assert made.render(asked("?"), quotes).answer == "easy\n</think>\n\nWrite <think>x</think> there.<|im_end|>"
    plain = chat(TEMPLATES["chatml"]).render(asked("?"), answered("Write <think>x</think> there."))
    assert (plain.answer, plain.notes) == ("Write <think>x</think> there.<|im_end|>", ())


def test_reasoning_that_is_never_closed_is_no_answer() -> None:
    for template in (R1, TEMPLATES["chatml"]):
        with pytest.raises(UnwrittenError, match="opens reasoning and never closes it"):
            chat(template).render(asked("red?"), answered("<think>\nhm"))


# ---- calls, tools and what else is left out


def test_calls_are_answers_and_tools_are_in_the_prompt() -> None:
    made = chat(TOOL_USE)
    rendered = made.render(Conversation((Message("user", "Paris?"),), TOOLS), CALL)
    assert '"name": "weather"' in rendered.prompt
    assert rendered.answer == '<call>{"name": "weather", "arguments": {"city": "Paris"}}</call><|im_end|>'
    assert rendered.notes == ()
    assert made.answer_text(asked("Paris?"), CALL) == rendered.answer.removesuffix("<|im_end|>")


def test_arguments_given_as_text_are_written_as_json_or_as_text_where_only_that_is_taken() -> None:
    call = Message("assistant", "", calls=(Call("weather", '{"city": "Paris"}', as_text=True),))
    assert '"arguments": {"city": "Paris"}' in chat(TOOL_USE).render(asked("Paris?"), call).answer
    text = TOOL_USE.replace("{{ c.function | tojson }}", "{{ c.function.name + c.function.arguments }}")
    assert chat(text).render(asked("Paris?"), call).answer.startswith('<call>weather{"city": "Paris"}</call>')


def test_calls_without_arguments_and_arguments_as_python_writes_them() -> None:
    bare = Message("assistant", "", calls=(Call("weather", "{}", as_text=True),))
    assert '"arguments": {}' in chat(TOOL_USE).render(asked("Paris?"), bare).answer
    python = chat(TOOL_USE.replace("{{ c.function | tojson }}", "{{ c.function.arguments }}"))
    text = Message("assistant", "", calls=(Call("weather", '{"city": "Paris"}', as_text=True),))
    assert python.render(asked("weather in Paris?"), replace(text, content="weather")).answer == (
        'weather<call>{"city": "Paris"}</call><|im_end|>'
    )


def test_a_template_that_refuses_conversations_without_tools_serves_those_with_them() -> None:
    made = chat("{% if not tools %}{{ raise_exception('tools') }}{% endif %}" + TOOL_USE)
    assert list(doubts(made)) == []
    assert made.render(Conversation((Message("user", "Paris?"),), TOOLS), CALL).answer.startswith("<call>")
    with pytest.raises(RefusedError):
        made.render(asked("Paris?"), answered("mild"))


def test_a_model_with_a_template_for_tools_has_it_used() -> None:
    words = tokenizer()
    words.chat_template = {"default": TEMPLATES["chatml"], "tool_use": TOOL_USE}
    made = ChatFormat(words)
    with pytest.raises(UnwrittenError, match="writes no tool calls"):
        made.render(asked("Paris?"), CALL)
    rendered = made.render(Conversation((Message("user", "Paris?"),), TOOLS), CALL)
    assert (rendered.answer[:6], rendered.notes) == ("<call>", ())


def test_a_template_that_writes_no_calls_loses_no_row_in_silence() -> None:
    made = chat(TEMPLATES["chatml"])
    with pytest.raises(UnwrittenError, match="writes no tool calls"):
        made.render(asked("Paris?"), CALL)
    result = Message("tool", "mild", name="weather")
    rendered = made.render(Conversation((Message("user", "Paris?"), CALL, result), TOOLS), answered("mild"))
    assert rendered.notes == (
        "conversation in which the chat template leaves out an earlier tool call",
        "conversation whose tools the chat template leaves out",
    )


def test_turns_that_a_template_drops_are_said() -> None:
    one = "{% for m in ROWS %}{{ m.content }}<|im_end|>{% endfor %}"
    no_system, last_two = (
        chat(one.replace("ROWS", "messages if m.role != 'system'")),
        chat(one.replace("ROWS", "messages[-2:]")),
    )
    brief, longer = talk(("system", "brief"), ("user", "x")), talk(("user", "first"), ("assistant", "b"), ("user", "x"))
    assert no_system.render(brief, answered("blue")).notes == (LEFT_OUT.format("system"),)
    assert last_two.render(longer, answered("blue")).notes == (LEFT_OUT.format("user"),)
    with pytest.raises(UnwrittenError, match="leaves out the tool turn before the answer"):
        chat(one.replace("ROWS", "messages if m.role != 'tool'")).render(
            longer.then(CALL, Message("tool", "sunny")), answered("blue")
        )


def test_planted_silence_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from prospect.model import left_out

    plant(monkeypatch, left_out.shows, "if wanted in text or", "if True or")
    assert chat(TEMPLATES["chatml"]).render(asked("red?"), Message("assistant", "blue", reasoning="first")).notes == ()


def test_a_template_that_writes_no_answer_or_no_question_is_refused_at_the_start() -> None:
    for template, says in [
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content }}<|im_end|>{% endfor %}",
            "writes nothing of an answer",
        ),
        ("always the same<|im_end|>", "writes nothing of a user's turn"),
        ("{% for m in messages if m.role != 'user' %}{{ m.content }}{% endfor %}", "writes nothing of a user's turn"),
    ]:
        with pytest.raises(UserError, match=says):
            chat(template)


def test_a_template_that_takes_parts_only_gets_them() -> None:
    made = chat(PARTS)
    assert made.as_parts
    rendered = made.render(talk(("system", "brief"), ("user", "red?")), answered("blue"))
    assert (rendered.prompt.count("red?"), rendered.prompt.count("brief"), rendered.answer) == (1, 1, "blue<|im_end|>")
    assert not chat(TEMPLATES["chatml"]).as_parts


def test_planted_text_for_a_template_of_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, ChatFormat._write_parts, "self.as_parts = True", "pass")
    with pytest.raises(UserError, match="writes nothing of a user's turn"):
        chat(PARTS)


# ---- tokens that messages spell


def ids_of(made: ChatFormat, text: str) -> list[int]:
    return made.encode_pair(made.render(asked("red?"), answered(text)))[1]


def test_marks_that_belong_into_answers_are_tokens() -> None:
    own = [special(name) for name in ("<think>", "</think>", "<tool_call>", "<mine>")]
    made = chat(TEMPLATES["chatml"], *own)
    for token in own:
        assert made.tokenizer.convert_tokens_to_ids(token.content) in ids_of(made, f"a {token.content} b")
    assert ids_of(made, "<|im_end|>").count(made.stop_ids[-1]) == 1


def test_kept_tokens_are_tokens_though_the_template_writes_them() -> None:
    start = tokenizer().convert_tokens_to_ids("<|im_start|>")
    assert start not in ids_of(chat(TEMPLATES["chatml"]), "say <|im_start|>")
    assert start in ids_of(chat(TEMPLATES["chatml"], kept=["<|im_start|>"]), "say <|im_start|>")


def test_marks_of_turns_are_text_also_where_the_tokenizer_does_not_call_them_special() -> None:
    marks = [AddedToken(token.content, special=False, normalized=False) for token in PHI_MARKS]
    made = chat(PHI, *marks)
    end = token_id(made.tokenizer, "<|end|>")
    assert made.turn_end == "<|end|>"
    assert ids_of(made, "say <|end|> to me").count(end) == 1
    assert "say <|end|> to me" in str(made.tokenizer.decode(ids_of(made, "say <|end|> to me")))


@pytest.mark.parametrize("text", ["\ue000", "\ue0001\ue001", "\ue00099\ue001 \ue001", "a\ue000<|im_end|>\ue001"])
def test_the_shields_own_characters_are_text_too(text: str) -> None:
    made = chat(TEMPLATES["chatml"])
    ids = ids_of(made, f"{text}.")
    assert made.tokenizer.decode(ids[:-1]) == f"{text}."
    assert made.plain(made.render(asked("red?"), answered(f"{text}.")).answer) == f"{text}.<|im_end|>"


def test_planted_faith_in_messages_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, Shield.__init__, "self.names = (_OPEN,", 'self.names = ("none of it",')
    with pytest.raises((IndexError, AssertionError, UnwrittenError)):
        test_the_shields_own_characters_are_text_too("\ue00099\ue001 \ue001")


def test_a_sampled_answer_keeps_the_marks_that_belong_into_answers() -> None:
    made = chat(TEMPLATES["chatml"], special("<think>"), special("</think>"))
    ids = made.tokenizer("<think>a</think>b<|im_start|>", add_special_tokens=False).input_ids
    assert made.read(ids) == "<think>a</think>b"


def test_a_sampled_answer_is_what_stands_between_the_marks_around_an_answers_text() -> None:
    harmony = (
        "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.role == 'assistant' %}<|eot_id|>final{% endif %}<mid>"
        "{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    )
    made = chat(harmony, special("<mid>"))
    ids = made.encode_pair(made.render(asked("red?"), answered("blue")))[1]
    assert made.read(ids[:-1]) == "blue"
    thought = made.tokenizer("<|eot_id|>analysis<mid>hm<|im_start|>assistant", add_special_tokens=False).input_ids
    assert made.read([*thought, *ids[:-1]]) == "blue"
    closed = chat(TEMPLATES["chatml"].replace("{{ m['content'] }}", "{{ m['content'] }}<|eot_id|>"), kept=())
    assert closed.read(closed.encode_pair(closed.render(asked("red?"), answered("it is blue")))[1][:-1]) == "it is blue"
    mistral = chat(TEMPLATES["mistral"])  # writes a space before an answer
    assert (
        mistral.read(mistral.encode_pair(mistral.render(asked("red?"), answered("it is blue")))[1][:-1]) == "it is blue"
    )
    headed = chat(TEMPLATES["chatml"].replace("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", ""))
    assert headed.read(headed.encode_pair(headed.render(asked("red?"), answered("blue")))[1][:-1]) == "blue"
    spaced = chat("{% for m in messages %}{{ m.content }}\n\n{% endfor %}")
    assert spaced.read(spaced.encode_pair(spaced.render(asked("red?"), answered("blue")))[1][:-1]) == "blue"


def test_messages_that_spell_the_templates_marks_are_said() -> None:
    rendered = chat(TEMPLATES["chatml"]).render(asked("<|im_start|>user\nred?<|im_end|>"), answered("blue"))
    assert any("spells the chat template's own marks" in note for note in rendered.notes)


# ---- dates


def test_the_date_is_the_one_that_is_given_and_part_of_the_digest() -> None:
    day, later = date(2025, 2, 3), date(2025, 2, 4)
    made = chat(DATED, day=day)
    assert made.uses_date
    assert "Today is 03 February 2025" in made.prompt(asked("red?"))
    assert made.digest_parts() != chat(DATED, day=later).digest_parts()
    plain = TEMPLATES["chatml"]
    assert not chat(plain).uses_date
    assert chat(plain, day=day).digest_parts() == chat(plain, day=later).digest_parts()


def test_planted_clock_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, ChatFormat.__init__, "day or date.today()", "date.today()")
    assert "03 February 2025" not in chat(DATED, day=date(2025, 2, 3)).prompt(asked("red?"))


# ---- facts found by rendering


def test_facts_do_not_depend_on_a_second_turn_being_allowed() -> None:
    template = "{% if messages | length > 2 %}{{ raise_exception('one turn') }}{% endif %}" + TEMPLATES["chatml"]
    assert chat(template).marks == chat(TEMPLATES["chatml"]).marks


def test_without_an_end_of_turn_eos_ends_an_answer() -> None:
    made = chat("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    assert made.turn_end == made.tokenizer.eos_token
    assert trained(made, asked("red?"), answered("blue")) == "assistant: blue\n<|endoftext|>"


def test_named_tokens_are_shielded(monkeypatch: pytest.MonkeyPatch) -> None:
    words: PreTrainedTokenizerBase = tokenizer()
    assert {"<s>", "<|endoftext|>"} <= turn_marks.named_tokens(words)
