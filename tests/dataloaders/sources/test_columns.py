"""Nothing that a row says is lost in silence: what is not read is named, what is doubtful is not guessed."""

from __future__ import annotations

from typing import Any

import pytest

from dataloaders.sources import dialogue, files, given
from dataloaders.sources.source import answers, user
from prospect.errors import UserError
from tests.planted import plant

Q, A, B = "What is red?", "A color.", "No idea."
PAIR = {"chosen": A, "rejected": B}
USER, GOOD = {"role": "user", "content": Q}, {"role": "assistant", "content": A}


def test_columns_and_message_keys_that_are_not_read_are_named_once_with_their_counts(load, tmp_path):
    rows = [
        {"instruction": Q, "response": A, "id": 1, "citation": None, "notes": ""},
        {"instruction": Q, "response": [{**GOOD, "citations": ["x"], "refusal": None}], "id": 2, "citation": "y"},
    ]
    _, drops = load("files", rows)
    line = "not read: columns `id` (2), `citation` (1); message key `citations` (1)"
    assert (drops.notes[line], drops.places[line]) == (2, [f"{tmp_path}/rows.jsonl:1"])


def test_the_name_of_a_speaker_is_a_text_that_is_not_read(load):
    _, drops = load("files", [{"messages": [{**USER, "name": "Ann"}, {**GOOD, "id": "m1"}]}])
    assert list(drops.notes) == ["not read: message key `name` (1)"]


def test_a_column_that_is_no_longer_counted_as_unread_is_lost_in_silence(load, monkeypatch):
    plant(monkeypatch, given.Given.unread, "column not in known", "False")
    with pytest.raises(AssertionError):
        assert load("files", [{"prompt": Q, **PAIR, "documents": "x"}])[1].notes


def test_a_context_is_joined_as_an_input_is(load):
    dolly = [{"instruction": Q, "context": "Red is one.", "response": A, "category": "qa"}]
    squad = [{"title": "Colors", "context": "Red is one.", "question": Q, "answers": {"text": [A]}}]
    for rows in dolly, squad:
        (example,), drops = load("files", rows)
        assert example.prompt == user(f"{Q}\nRed is one.")
        assert not any("context" in note for note in drops.notes)


def test_a_context_beside_messages_is_named(load):
    _, drops = load("files", [{"messages": [USER, GOOD], "context": "Red is one."}])
    assert list(drops.notes) == ["not read: column `context` (1)"]


@pytest.mark.parametrize("column", ["query", "input", "question", "instruction", "problem", "Question", "user prompt"])
def test_a_prompt_under_its_usual_names(load, column):
    (example,), drops = load("files", [{column: Q, **PAIR}])
    assert (example.prompt, example.answers, drops.notes) == (user(Q), answers(A, B), {})


def test_an_implicit_prompt_ends_with_a_word_and_is_said(load):
    rows = [
        {"chosen": "Say it: yesterday", "rejected": "Say it: yes", "id": "a", "source": "b"},
        {"chosen": "Q: 1?\nA:\none", "rejected": "Q: 1?\nA:\non"},
    ]
    (first, second), drops = load("files", rows)
    assert (first.prompt, first.answers) == (user("Say it:"), answers(" yesterday", " yes"))
    assert (second.prompt, second.answers) == (user("Q: 1?\nA:\n"), answers("one", "on"))
    assert drops.notes["the prompt is what `chosen` and `rejected` both begin with"] == 2


def test_an_implicit_prompt_that_ends_inside_a_word_is_found(load, monkeypatch):
    plant(monkeypatch, dialogue.opening, "while shared and", "while False and")
    (example,), _ = load("files", [{"chosen": "Say it: yesterday", "rejected": "Say it: yesman"}])
    assert example.prompt == user("Say it: yes")


@pytest.mark.parametrize("column", ["prompt", "chosen"])
def test_what_the_user_maps_wins(load, column):
    row = {"instruction": "no", "question": Q, "prompt": "no", **PAIR}
    mapped = {"prompt": "question"} if column == "prompt" else {"prompt": "question", "chosen": "rejected"}
    if column == "chosen":
        mapped["rejected"] = "chosen"
    (example,), drops = load("files", [row], columns=mapped)
    assert example.prompt == user(Q)
    assert example.answers == (answers(A, B) if column == "prompt" else answers(B, A))
    assert list(drops.notes) == ["not read: columns `instruction` (1), `prompt` (1)"]


def test_null_says_that_no_column_means_it(load):
    rows = [{"topic": "sky", "chosen": "The sky is blue.", "rejected": "The sky is red."}]
    (example,), drops = load("files", rows, columns={"prompt": None})
    assert example.prompt == user("The sky is")
    assert "not read: column `topic` (1)" in drops.notes
    (example,), _ = load("files", [{"messages": [USER, GOOD], "label": 3}], columns={"label": None})
    assert (example.desirable, example.imitate) == ((), 0)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, GOOD], "label": "math"},
        {"messages": [USER, GOOD], "label": 7},
        {"instruction": Q, "output": A, "label": ["a"]},
        {"prompt": Q, **PAIR, "label": 4},
    ],
)
def test_a_label_that_is_no_verdict_refuses_nothing(load, row):
    (example,), drops = load("files", [row])
    assert (example.desirable, example.imitate) == ((), 0)
    assert list(drops.notes) == ["not read: column `label` (1)"]


SCORES: list[tuple[dict[str, Any], tuple[float, ...], str]] = [
    ({"score_chosen": "9", "score_rejected": 1.5}, (9.0, 1.5), ""),
    ({"score_chosen": 9, "score_rejected": None}, (), "`score_rejected` is no number: the scores are not read"),
    ({"score_chosen": float("nan"), "score_rejected": 1}, (), "`score_chosen` is no number: the scores are not read"),
    ({"score_chosen": True, "score_rejected": 1}, (), "`score_chosen` is no number: the scores are not read"),
    ({"score_chosen": None, "score_rejected": None}, (), ""),
]


@pytest.mark.parametrize(("scores", "read", "said"), SCORES)
def test_scores_that_are_no_numbers_are_left_out_and_named(load, scores, read, said):
    (example,), drops = load("files", [{"prompt": Q, **PAIR, **scores}])
    assert (example.scores, list(drops.notes)) == (read, [said] if said else [])


def test_a_reward_is_a_score_unless_both_stand_there(load):
    row = {"prompt": Q, "output": A, "reward": 0.5}
    assert load("files", [row])[0][0].scores == (0.5,)
    (example,), drops = load("files", [{**row, "score": 0.7}])
    assert example.scores == ()
    assert "two columns of scores differ: the scores are not read" in drops.notes


def test_halos_rewards_go_with_their_outputs(load):
    row = {"prompt": Q, "output_A": B, "output_B": A, "label": 0, "reward_A": 1, "reward_B": 2}
    (example,), _ = load("files", [row])
    assert (example.answers, example.scores) == (answers(A, B), (2.0, 1.0))
    (example,), _ = load("files", [{"prompt": Q, "output": [GOOD], "label": 1, "reward": 2}])
    assert (example.answers, example.desirable, example.scores) == (answers(A), (True,), (2.0,))


def test_a_label_read_the_wrong_way_round_swaps_the_answers(load, monkeypatch):
    plant(monkeypatch, files._compared, "if first else", "if not first else", times=2)
    (example,), _ = load("files", [{"prompt": Q, "output_A": A, "output_B": B, "label": 1}])
    assert example.answers == answers(B, A)


def test_text_that_spells_messages_in_some_rows_is_text_and_said(load):
    rows = [{"prompt": Q, "completion": str([GOOD])}, {"prompt": Q, "completion": A}]
    (first, _), drops = load("files", rows)
    assert first.answers == answers(str([GOOD]))
    assert list(drops.notes) == ["`completion` spells messages, but not in each row: it is read as text"]


@pytest.mark.parametrize("text", ["User: q\nAssistant: a", "[{'role': 'user'}\n {'role': 'assistant'}]", "[1", "[]"])
def test_messages_that_are_no_messages_say_what_they_are(load, text):
    fine = {"messages": [USER, GOOD]}
    _, drops = load("files", [fine, {"messages": text}])
    (reason,) = drops.reasons
    assert reason.startswith("`messages` is ")


@pytest.mark.parametrize("key", ["image", "images", "audio", "videos"])
def test_rows_with_more_than_text_are_refused_with_the_reason(load, key):
    rows = [{"messages": [USER, GOOD], key: []}, {"messages": [USER, GOOD], key: ["x"]}]
    _, drops = load("files", rows)
    assert drops.reasons == {f"has `{key}`: Prospect trains on text alone": 1}


def test_a_prompt_that_stands_nowhere_in_the_messages(load):
    (example,), drops = load("files", [{"prompt": "Other?", "messages": [USER, GOOD]}])
    assert (example.prompt, list(drops.notes)) == (user(Q), ["not read: column `prompt` (1)"])
    with pytest.raises(UserError, match="1 `prompt` does not stand in `messages`"):
        load("files", [{"prompt": "Other?", "messages": [USER], **PAIR}])


def test_a_prompt_after_messages_goes_on_from_them(load):
    (example,), _ = load("files", [{"messages": [USER, GOOD], "prompt": "Sure?", "completion": "Yes."}])
    assert [turn.content for turn in example.prompt] == [Q, A, "Sure?"]
