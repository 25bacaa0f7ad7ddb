"""Every chat template that TRL ships: what is trained is what the template itself writes.

Two judges that share no code with ours: transformers' rendering of the same conversation, and in TRL's training
templates the marks around what an assistant says (``{% generation %}``), which transformers turns into a mask.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from dataloaders.records import Record
from dataloaders.tokenization import Limits, tokenize
from prospect.batch import Role
from prospect.config.schema import TrainOn, Truncation
from prospect.conversation import Call, Conversation, Message, answered, asked
from prospect.errors import UnwrittenError, UserError
from prospect.model.answer_part import AnswerPart
from prospect.model.load import train_tokenizer
from prospect.model.template import ChatFormat
from prospect.model.turn_marks import TurnMarks
from tests.model.formats import TEXTS, talk
from tests.planted import plant

_SPEC = find_spec("trl")
_FOLDER = Path(_SPEC.submodule_search_locations[0]) / "chat_templates" if _SPEC else Path("trl is not installed")  # type: ignore[index]
ALL = sorted(file.stem for file in _FOLDER.glob("*.jinja"))
MARKED = [name for name in ALL if name.endswith("_training")]
_MARK = re.compile(
    r"<[|｜][^<>\s]{1,40}?[|｜]?>|<(?:start|end)_of_\w+>|</s>|<turn\|>|\[/?[A-Z_]{3,}\]|</?think>|\[gMASK\]|<sop>"
)

QUESTION, ANSWER = "what is one and two?", "it is three."
EARLIER = talk(("user", "red?"), ("assistant", "green blue"), ("user", QUESTION))
_LOOK = {
    "name": "look",
    "description": "Looks.",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
}
TOOLS = json.dumps([{"type": "function", "function": _LOOK}])
CALL = Message("assistant", "", calls=(Call("look", '{"at": "answers"}', "abcde1234"),))
OTHER_CALL = Message("assistant", "", calls=(Call("listen", '{"to": "river"}', "vwxyz6789"),))
RESULT = Message("tool", "red and green", name="look", call_id="abcde1234")
WEATHER = Conversation((Message("user", "look"),), TOOLS)
CASES = {
    "one turn": (asked(QUESTION), answered(ANSWER)),
    "two turns": (EARLIER, answered(ANSWER)),
    "system": (talk(("system", "answers"), ("user", QUESTION)), answered(ANSWER)),
    "reasoning": (asked(QUESTION), Message("assistant", ANSWER, reasoning="one and two")),
    "call": (WEATHER, CALL),
    "after a call": (WEATHER.then(CALL, RESULT), answered(ANSWER)),
}


@cache
def words(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer that knows a template's marks from tokenizer.json alone, as those of Llama 3 and Gemma 3 do."""
    template = (_FOLDER / f"{name}.jinja").read_text("utf-8")
    made = train_tokenizer(TEXTS, 400)
    assert isinstance(made, PreTrainedTokenizerFast)
    marks = sorted(set(_MARK.findall(template)))
    made.backend_tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    made.add_special_tokens({"bos_token": "<s>"})
    made.chat_template = template
    return made


@cache
def format_of(name: str) -> ChatFormat | None:
    """None where the template refuses text."""
    try:
        return ChatFormat(words(name))
    except UserError:
        return None


def written(name: str, conversation: Conversation, ask: bool, **more: Any) -> Any:
    """By transformers alone."""
    chat = format_of(name)
    rows = conversation.rows()
    if chat is not None and chat.as_parts:
        parts = [[{"type": "text", "text": row["content"]}] if row["content"] else [] for row in rows]
        rows = [row | {"content": content} for row, content in zip(rows, parts, strict=True)]
    options = {"tools": conversation.tool_rows() or None, "add_generation_prompt": ask, **more}
    return words(name).apply_chat_template(rows, **{"tokenize": False, **options})


def rendered(name: str, case: str) -> tuple[list[int], list[int]] | None:
    """Our ids; None where we refuse the conversation, which must then be the template's doing."""
    chat, (conversation, answer) = format_of(name), CASES[case]
    try:
        if chat is None:
            raise UserError("refuses text")
        prompt, ids, _ = chat.encode_pair(chat.render(conversation, answer))
    except UserError:
        with pytest.raises(Exception, match=r".+"):  # templates raise what they like
            written(name, conversation.then(answer), False)
        return None
    except UnwrittenError:  # it writes the same whatever is called
        texts = [written(name, WEATHER.then(call), False) for call in (CALL, OTHER_CALL)]
        assert conversation.tools
        assert texts[0] == texts[1]
        return None
    return prompt, ids


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ALL)
def test_the_prompt_is_the_generation_prompt_and_the_answer_ends_once(name: str, case: str) -> None:
    found, chat, (conversation, answer) = rendered(name, case), format_of(name), CASES[case]
    if found is None or chat is None:
        return
    prompt, ids = found
    assert prompt == words(name)(written(name, conversation, True), add_special_tokens=False).input_ids
    assert [at for at, token in enumerate(ids) if token in chat.stop_ids] == [len(ids) - 1]
    assert chat.turn_end in _MARK.findall(str(words(name).chat_template)) or ids[-1] == words(name).eos_token_id
    text = str(words(name).decode(ids))
    assert answer.content in text
    assert all(said in text for said in answer.called())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MARKED)
def test_what_is_trained_is_what_the_template_marks(name: str, case: str) -> None:
    found, chat, (conversation, answer) = rendered(name, case), format_of(name), CASES[case]
    if found is None or chat is None:
        return
    prompt, ids = found
    made = written(
        *(name, conversation.then(answer), False), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    whole = made["input_ids"]
    first, last = last_run(made["assistant_masks"])
    if whole[: len(prompt)] != prompt:  # the prompt of sampling opens reasoning that the answered conversation lacks
        marked, ours = (str(words(name).decode(some)) for some in (whole[first:last], ids))
        assert ours.endswith(marked[marked.rfind(answer.content) :].rstrip() if answer.content else "")
        assert answer.reasoning in ours or chat.marks.opened is None
        return
    ends = [i for i in range(first, last) if whole[i] in chat.stop_ids]
    if not ends:  # the template leaves a call open: the last mark that it writes ends it
        assert prompt + ids == whole
        return
    assert prompt + ids == whole[: ends[0] + 1]
    beside = str(words(name).decode(whole[len(prompt) : max(first, len(prompt))]))
    assert not answer.content or answer.content not in beside, (
        "what the template does not mark is a turn's head at most"
    )


def last_run(mask: list[int]) -> tuple[int, int]:
    """Where the last unbroken stretch of ones begins and ends."""
    last = max(i for i, on in enumerate(mask) if on) + 1
    return max((i for i, on in enumerate(mask[:last]) if not on), default=-1) + 1, last


@pytest.mark.parametrize("name", MARKED)
def test_every_answer_is_trained_once(name: str) -> None:
    chat, (conversation, answer) = format_of(name), CASES["two turns"]
    if chat is None:  # it refuses text
        assert rendered(name, "two turns") is None
        return
    record = Record("r", "d", conversation.messages, (answer,), (Role.chosen,), "end")
    items = list(tokenize(record, chat, Limits(1000, 900, Truncation.auto, TrainOn.all)))
    trained = [[token for token, on in zip(item.answer_ids[0], item.masks[0], strict=True) if on] for item in items]
    text = str(words(name).decode([token for some in trained for token in some]))
    assert text.count("green blue") == text.count(ANSWER) == 1
    assert "red?" not in text
    assert sum(token in chat.stop_ids for some in trained for token in some) == 2


def test_there_are_templates_to_judge() -> None:
    assert len(MARKED) > 25
    assert sum(format_of(name) is not None for name in ALL) > len(ALL) - 4
    calls = sum(rendered(name, "call") is not None for name in ALL)
    assert calls > len(ALL) / 2


@pytest.mark.parametrize(
    ("function", "right", "wrong", "name"),
    [
        (AnswerPart.ended, "found = rest[: min(whole, default=ends[0])]", "found = rest", "phi3_training"),
        (AnswerPart.apart, "full[shared:], self", "full[shared + 1 :], self", "deepseekv3_training"),
        (AnswerPart.reasoned, "opened.closing + kept", "opened.closing", "deepseek_r1_distill_training"),
    ],
)
def test_planted_bugs_are_seen(
    function: Any, right: str, wrong: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def holds() -> bool:
        try:
            for case in ("one turn", "reasoning"):
                test_the_prompt_is_the_generation_prompt_and_the_answer_ends_once(name, case)
                test_what_is_trained_is_what_the_template_marks(name, case)
        except AssertionError:
            return False
        return True

    assert holds()
    plant(monkeypatch, function, right, wrong)
    assert not holds()


def test_facts_of_well_known_templates() -> None:
    def marks(name: str) -> TurnMarks:
        chat = format_of(name)
        assert chat is not None
        return chat.marks

    assert marks("phi3").turn_end == "<|end|>"
    assert marks("llama3").turn_end == "<|eot_id|>"
    assert marks("gemma3").turn_end == "<end_of_turn>"
    assert marks("cohere2").turn_end == "<|END_OF_TURN_TOKEN|>"
    assert marks("qwen3").turn_end == "<|im_end|>"
    assert marks("gptoss").turn_end == "<|return|>"
    opened = marks("deepseek_r1_distill").opened
    assert opened is not None
    assert (opened.opening, opened.closing) == ("<think>\n", "\n</think>\n\n")
    assert marks("qwen3").opened is None
