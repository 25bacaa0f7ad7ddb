"""Records as ids: masks, truncation, all turns of a conversation."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from dataloaders import tokenization as module
from dataloaders.records import Record
from dataloaders.tokenization import Limits, Tokenized, prompt_key, tokenize
from prospect.batch import Role
from prospect.config.schema import TrainOn, Truncation
from prospect.conversation import Call, Conversation, Message, answered
from tests.model.formats import TEMPLATES, chat
from tests.planted import plant

LONG = Limits(1000, 900, Truncation.auto)
TALK = (Message("user", "what is one and two?"), Message("assistant", "three."), Message("user", "red?"))
PAIR = Record("r", "d", TALK, (answered("blue"), answered("green and red")), (Role.chosen, Role.rejected), "end")
SINGLE = replace(PAIR, answers=(answered("blue"),), roles=(Role.chosen,))
CHATML = chat("chatml")


def one(record: Record, limits: Limits, format_=CHATML) -> Tokenized:
    (item,) = tokenize(record, format_, limits)
    return item


def test_a_pair() -> None:
    item = one(PAIR, LONG)
    assert item.prompt_ids == CHATML.encode(CHATML.prompt(Conversation(TALK)))
    assert [CHATML.tokenizer.decode(ids) for ids in item.answer_ids] == ["blue<|im_end|>", "green and red<|im_end|>"]
    assert [sum(mask) for mask in item.masks] == [len(ids) for ids in item.answer_ids]
    assert (item.roles, item.prompt_cut, item.answers_cut, item.apart) == ([0, 1], 0, 0, 0)


@pytest.mark.parametrize("name", [*TEMPLATES, "archangel"])
def test_twice_gives_the_same_and_changes_nothing(name: str) -> None:
    format_, before = chat(name), copy.deepcopy(PAIR)
    assert one(PAIR, LONG, format_) == one(PAIR, LONG, format_)
    assert before == PAIR


def test_what_is_tokenized_apart_is_counted() -> None:
    assert one(PAIR, LONG, chat("unstable")).apart == 2
    assert one(PAIR, LONG).apart == 0


# ---- truncation


LENGTH = len(one(PAIR, LONG).prompt_ids)
LONGEST = max(len(ids) for ids in one(PAIR, LONG).answer_ids)


def test_what_fits_is_whole() -> None:
    item = one(PAIR, Limits(LENGTH + LONGEST, 5, Truncation.auto))
    assert (item.prompt_cut, item.answers_cut) == (0, 0)


@pytest.mark.parametrize(
    ("mode", "keep", "end_kept"),
    [
        (Truncation.auto, "end", True),
        (Truncation.auto, "start", False),
        (Truncation.keep_end, "start", True),
        (Truncation.keep_start, "end", False),
    ],
)
def test_a_long_prompt_is_cut_at_one_end(mode: Truncation, keep, end_kept: bool) -> None:
    whole = one(PAIR, LONG).prompt_ids
    item = one(replace(PAIR, keep=keep), Limits(LENGTH + LONGEST - 1, 10, mode))
    assert item.prompt_ids == (whole[-10:] if end_kept else whole[:10])
    assert item.prompt_cut == LENGTH - 10
    assert item.answers_cut == 0


@pytest.mark.parametrize("mode", [Truncation.keep_start, Truncation.keep_end])
def test_bos_survives_at_either_end(mode: Truncation) -> None:
    format_ = chat("llama3")
    whole = one(PAIR, LONG, format_).prompt_ids
    cut = one(PAIR, Limits(len(whole), 10, mode), format_).prompt_ids
    assert cut[0] == format_.tokenizer.bos_token_id
    assert len(cut) == 10
    assert cut[1:] == (whole[-9:] if mode is Truncation.keep_end else whole[1:10])


def test_planted_loss_of_bos_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, module._cut_prompt, "bos is not None and prompt[0] == bos", "False")
    format_ = chat("llama3")
    cut = one(PAIR, Limits(40, 10, Truncation.keep_end), format_).prompt_ids
    assert cut[0] != format_.tokenizer.bos_token_id


def test_answers_are_cut_at_their_end_and_counted() -> None:
    item = one(PAIR, Limits(12, 10, Truncation.keep_end))
    whole = one(PAIR, LONG)
    assert [len(ids) for ids in item.answer_ids] == [min(2, len(ids)) for ids in whole.answer_ids]
    assert item.answer_ids[1] == whole.answer_ids[1][:2]
    assert item.answers_cut == sum(len(ids) > 2 for ids in whole.answer_ids)
    assert all(len(mask) == len(ids) for mask, ids in zip(item.masks, item.answer_ids, strict=True))


def test_both_answers_of_a_pair_share_one_prompt() -> None:
    """A prompt cut for the longer answer only would compare answers to different questions."""
    assert one(PAIR, Limits(LENGTH + LONGEST - 1, 10, Truncation.auto)).prompt_cut > 0
    short = replace(PAIR, answers=(answered("blue"), answered("red")))
    longest = max(len(ids) for ids in one(short, LONG).answer_ids)
    assert one(short, Limits(LENGTH + longest, 10, Truncation.auto)).prompt_cut == 0


# ---- all turns


CONVERSATION = replace(
    SINGLE,
    prompt=(
        Message("system", "answers"),
        Message("user", "one?"),
        Message("assistant", "two."),
        Message("user", "three?"),
        Message("assistant", "green."),
        Message("user", "red?"),
    ),
)
ALL_TURNS = replace(LONG, train_on=TrainOn.all)


def trained(item: Tokenized, format_=CHATML) -> str:
    kept = [i for i, on in zip(item.answer_ids[0], item.masks[0], strict=True) if on]
    return format_.tokenizer.decode(kept)


@pytest.mark.parametrize(
    ("name", "end"), [("chatml", "<|im_end|>"), ("llama3", "<|eot_id|>"), ("mistral", "<|endoftext|>")]
)
def test_a_stable_template_gives_one_sequence_with_a_mask(name: str, end: str) -> None:
    format_ = chat(name)
    item = one(CONVERSATION, ALL_TURNS, format_)
    assert trained(item, format_).replace(" ", "") == f"two.{end}green.{end}blue{end}"
    last = one(CONVERSATION, LONG, format_)
    assert item.prompt_ids + item.answer_ids[0] == last.prompt_ids + last.answer_ids[0]
    assert item.id == CONVERSATION.id


@pytest.mark.parametrize("name", ["archangel", "thinking", "unstable"])
def test_another_template_gives_one_sequence_a_turn(name: str) -> None:
    """Each as if the conversation had ended there, which is how the model will meet it."""
    format_ = chat(name)
    items = list(tokenize(CONVERSATION, format_, ALL_TURNS))
    assert [item.id for item in items] == ["r.0", "r.1", "r"]
    for item, answer in zip(items, ("two.", "green.", "blue"), strict=True):
        assert trained(item, format_).endswith(answer + format_.turn_end)
        assert all(item.masks[0])
    assert items[-1].answer_ids == one(CONVERSATION, LONG, format_).answer_ids


def test_planted_spill_of_the_mask_onto_the_question_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, module._Piece.goes_on, "[False] * len(between)", "[True] * len(between)")
    assert trained(one(CONVERSATION, ALL_TURNS)) != "two.<|im_end|>green.<|im_end|>blue<|im_end|>"


def test_an_empty_earlier_answer_is_not_trained() -> None:
    turns = (Message("user", "one?"), Message("assistant", ""), Message("user", "red?"))
    assert trained(one(replace(SINGLE, prompt=turns), ALL_TURNS)) == "blue<|im_end|>"


def test_prompt_keys_follow_roles_and_contents() -> None:
    keys = {
        prompt_key(Conversation(talk, tools))
        for talk, tools in [
            (TALK, ""),
            (TALK, '[{"name": "get_weather"}]'),
            (TALK[:1], ""),
            ((Message("user", "ab"),), ""),
            ((Message("system", "ab"),), ""),
            ((Message("user", "a"), Message("user", "b")), ""),
            ((Message("user", "a"), Message("assistant", "", calls=(Call("look"),))), ""),
            ((Message("user", "a"), Message("assistant", "", calls=(Call("listen"),))), ""),
        ]
    }
    assert len(keys) == 8
    assert all(0 <= key < 2**63 for key in keys)
