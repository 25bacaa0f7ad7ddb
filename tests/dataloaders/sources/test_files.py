"""One's own data: every known shape is recognised, and what is wrong is said with its place."""

from __future__ import annotations

import json
from json import dumps
from typing import Any

import datasets
import pytest

from dataloaders.sources.source import answers, user
from prospect.errors import UserError

Q, A, B = "Why?", "Because.", "No."


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def shared_gpt(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


def as_struct(*turns: dict[str, str]) -> dict[str, list[str]]:
    """How Parquet may keep a list of messages."""
    return {key: [turn[key] for turn in turns] for key in ("role", "content")}


USER, GOOD, BAD = said("user", Q), said("assistant", A), said("assistant", B)

PAIRS: dict[str, dict[str, Any]] = {
    "TRL standard": {"prompt": Q, "chosen": A, "rejected": B},
    "TRL conversational": {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "TRL implicit prompt": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "UltraFeedback": {"prompt": Q, "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD]},
    "ShareGPT": {
        "conversations": [shared_gpt("human", Q)],
        "chosen": shared_gpt("gpt", A),
        "rejected": shared_gpt("gpt", B),
    },
    "ShareGPT with text": {"conversations": [shared_gpt("human", Q)], "chosen": A, "rejected": B},
    "Alpaca": {"instruction": Q, "input": "", "chosen": A, "rejected": B},
    "MedicalGPT": {"system": "", "history": [], "question": Q, "response_chosen": A, "response_rejected": B},
    "StackExchange": {"question": Q, "response_j": A, "response_k": B},
    "HALOs": {"prompt": [USER], "output_A": [BAD], "output_B": [GOOD], "label": 0},
    "HALOs, nested": {"prompt": [USER], "output_A": [[GOOD]], "output_B": [[BAD]], "label": 1},
    "query": {"query": Q, "chosen": A, "rejected": B},
    "Orca": {"system": "", "input": Q, "chosen": A, "rejected": B},
    "capitals": {"Instruction": Q, "Chosen": A, "Rejected": B},
    "two prompt columns, one of them empty": {"prompt": Q, "question": None, "chosen": A, "rejected": B},
    "two prompt columns that say the same": {"prompt": Q, "question": f"{Q}\n", "chosen": A, "rejected": B},
    "prompt but for white space": {"prompt": f"{Q} ", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "prompt repeated by one side": {"prompt": Q, "chosen": [USER, GOOD], "rejected": B},
    "messages that end with the chosen text": {"messages": [USER, GOOD], "chosen": A, "rejected": B},
    "messages that end with the chosen turn": {"messages": [USER, GOOD], "chosen": GOOD, "rejected": BAD},
    "JSON text": {"prompt": dumps([USER]), "chosen": dumps([GOOD]), "rejected": dumps([BAD])},
    "Python text": {"chosen": str([USER, GOOD]), "rejected": str([USER, BAD])},
    "Capybara": {"conversation": [{"input": Q, "output": A}], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "struct of lists": {"chosen": as_struct(USER, GOOD), "rejected": as_struct(USER, BAD)},
}


@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
def test_pairs(load, row):
    (example,), drops = load("files", [row])
    assert example.prompt == user(Q)
    assert (example.answers, example.pairs, example.imitate) == (answers(A, B), ((0, 1),), 0)
    assert (example.desirable, example.scores, example.dataset, drops.reasons) == ((), (), "files", {})


SINGLES: dict[str, dict[str, Any]] = {
    "TRL standard": {"prompt": Q, "completion": A},
    "TRL conversational": {"prompt": [USER], "completion": [GOOD]},
    "messages": {"messages": [USER, GOOD]},
    "ShareGPT": {"conversations": [shared_gpt("human", Q), shared_gpt("gpt", A)]},
    "Alpaca": {"instruction": Q, "input": "", "output": A},
    "Alpaca with all in its input": {"instruction": "", "input": Q, "output": A},
    "Dolly without a context": {"instruction": Q, "context": "", "response": A},
    "FLAN": {"inputs": Q, "targets": A},
    "input and output": {"input": Q, "output": A},
    "UltraChat": {"prompt": Q, "messages": [USER, GOOD]},
    "messages and their answer again": {"problem": Q, "solution": A, "messages": [USER, GOOD]},
    "messages under two names": {
        "messages": [USER, GOOD],
        "conversations": [shared_gpt("human", Q), shared_gpt("gpt", A)],
    },
    "completion that repeats the prompt": {"prompt": Q, "completion": [USER, GOOD]},
    "JSON text": {"messages": dumps([USER, GOOD])},
    "Python text": {"messages": str([USER, {**GOOD, "name": None}])},
    "struct of lists": {"conversations": {"from": ["human", "gpt"], "value": [Q, A]}},
}


@pytest.mark.parametrize("row", SINGLES.values(), ids=SINGLES)
def test_single_answers(load, row):
    (example,), _ = load("files", [row])
    assert (example.prompt, example.answers, example.imitate) == (user(Q), answers(A), 0)
    assert (example.pairs, example.desirable) == ((), ())


@pytest.mark.parametrize("label", [True, False, 1, 0])
@pytest.mark.parametrize("row", SINGLES.values(), ids=SINGLES)
def test_labelled_answers(load, row, label):
    (example,), _ = load("files", [{**row, "label": label}])
    assert (example.prompt, example.answers) == (user(Q), answers(A))
    assert (example.desirable, example.imitate) == ((bool(label),), 0 if label else None)
    assert load("files", [{**row, "kto_tag": label}])[0] == [example]


def test_prompts_alone(load):
    (example,), _ = load("files", [{"prompt": Q}])
    assert (example.prompt, example.answers, example.imitate) == (user(Q), (), None)


def test_instructions_carry_their_input_system_and_history(load):
    row = {"instruction": "Add", "input": "1, 2", "output": "3", "system": "Be terse", "history": [["Hi", "Hello"]]}
    (example,), _ = load("files", [row])
    turns = [(turn.role, turn.content) for turn in example.prompt]
    assert turns == [("system", "Be terse"), ("user", "Hi"), ("assistant", "Hello"), ("user", "Add\n1, 2")]


def test_an_implicit_text_prompt_is_what_both_texts_begin_with(load):
    (example,), _ = load("files", [{"chosen": "The sky is blue.", "rejected": "The sky is green."}])
    assert (example.prompt, example.answers) == (user("The sky is"), answers(" blue.", " green."))


def test_shared_turns_after_an_explicit_prompt_belong_to_it(load):
    more = [said("assistant", "Hm"), said("user", "Well?")]
    (example,), _ = load("files", [{"prompt": [USER], "chosen": [*more, GOOD], "rejected": [*more, BAD]}])
    assert [turn.content for turn in example.prompt] == [Q, "Hm", "Well?"]


def test_scores_are_kept(load):
    (pair,), _ = load("files", [{**PAIRS["TRL standard"], "score_chosen": 7, "score_rejected": 2.5}])
    (single,), _ = load("files", [{**SINGLES["Alpaca"], "score": -1}])
    assert (pair.scores, single.scores) == ((7.0, 2.5), (-1.0,))


def test_columns_map_other_names(load):
    row = {"q": Q, "good": A, "evil": B, "chosen": "not this"}
    (example,), _ = load("files", [row], columns={"prompt": "q", "chosen": "good", "rejected": "evil"})
    assert (example.prompt, example.answers) == (user(Q), answers(A, B))


@pytest.mark.parametrize(
    ("file", "rows", "pairs", "labels", "first"),
    [
        ("dpo_en_demo.json", 300, 300, 0, "Hi! I'd like to create a new language game"),
        ("dpo_zh_500.jsonl", 500, 500, 0, "20个关于新鲜果汁菜单的口号"),
        ("kto_en_demo.json", 300, 0, 300, "The Federal Trade Commission"),
        ("alpaca_en_demo.json", 999, 0, 0, "Describe a process of making crepes."),
    ],
)
def test_real_files_are_read_without_being_told_their_shape(load, shared_data, file, rows, pairs, labels, first):
    examples, drops = load("files", shared_data / file)
    assert (len(examples), drops.rows_read, drops.reasons) == (rows, rows, {})
    assert sum(len(example.pairs) for example in examples) == pairs
    assert sum(len(example.desirable) for example in examples) == labels
    assert examples[0].prompt[-1].content.startswith(first)


def test_a_real_row_is_read_to_the_letter(load, shared_data):
    raw = json.loads((shared_data / "dpo_en_demo.json").read_text())
    for row, example in zip(raw, load("files", shared_data / "dpo_en_demo.json")[0], strict=True):
        assert [turn.content for turn in example.prompt] == [turn["value"] for turn in row["conversations"]]
        assert example.answers == answers(row["chosen"]["value"], row["rejected"]["value"])


MORE = "`chosen` and `rejected` differ in more than their last turn"
DIFFERENT = "the prompt and the answer's own first turn differ"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": None}, "no `chosen`"),
        ({"prompt": None}, "empty prompt"),
        ({"prompt": 7}, "`prompt` is no list of messages, nor text"),
        ({"prompt": " "}, "empty prompt"),
        ({"prompt": "\ud800"}, "`prompt` has a lone surrogate (broken Unicode)"),
        ({"rejected": "\n"}, "empty answer"),
        ({"rejected": A}, "chosen equals rejected"),
        ({"prompt": [GOOD, USER]}, "roles do not alternate user, assistant"),
        ({"prompt": [USER, USER]}, "roles do not alternate user, assistant"),
        ({"prompt": [USER, GOOD]}, "prompt does not end with a user turn"),
        ({"prompt": [said("tool", "x")]}, "a tool's turn that follows no call"),
        ({"prompt": [said("judge", "x")]}, "`prompt` has a turn of role `judge`"),
        ({"prompt": [{"role": ["user"]}]}, "`prompt` has a turn of role `['user']`"),
        ({"prompt": [{"role": "user", "content": None}]}, "`prompt` has a turn whose content is not text"),
        ({"prompt": [USER, said("system", "x")]}, "a system turn that is not the first"),
        ({"prompt": "What?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, DIFFERENT),
        ({"system": "x", "prompt": [said("system", "y"), USER]}, "two system turns that differ"),
        ({"tools": "weather"}, "`tools` is no list of tools"),
        ({"images": ["x.png"]}, "has `images`: Prospect trains on text alone"),
        ({"prompt": ["x"]}, "`prompt` holds something that is no message"),
        ({"prompt": []}, "empty prompt"),
        (
            {"chosen": [USER, GOOD, said("user", "And?"), GOOD]},
            "`chosen` and `rejected` differ in more than their last turn",
        ),
        ({"chosen": [USER]}, "`chosen` does not end with an assistant turn"),
        ({"chosen": [{**GOOD, "weight": 0}]}, "`chosen` ends with a turn that may not be trained"),
        ({"history": ["ab"]}, "`history` is no list of [question, answer]"),
    ],
)
def test_bad_rows_are_dropped_and_counted_with_their_place(load, tmp_path, row, reason):
    fine = PAIRS["TRL standard"]
    examples, drops = load("files", [fine, {**fine, **row}])
    assert len(examples) == 1
    assert drops.places == {reason: [f"{tmp_path}/rows.jsonl:2"]}


def test_a_prompt_that_is_dialogue_text_is_read_as_its_turns(load):
    prompt = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant:"
    (pair,), drops = load("files", [{"prompt": prompt, "chosen": " A", "rejected": " B"}])
    assert [(turn.role, turn.content) for turn in pair.prompt] == [
        ("user", "Hi"),
        ("assistant", "Hello."),
        ("user", "Why?"),
    ]
    assert list(drops.notes) == ["`prompt` is dialogue text as in Anthropic HH: it is read as its turns"]
    with pytest.raises(UserError, match=r"read it with datasets.files.source=hh"):
        load("files", [{"prompt": "q", "completion": "\n\nHuman: Hi\n\nAssistant: a"}])


def test_an_answer_may_be_a_number_and_scores_the_wrong_way_round_are_said(load):
    (sum_,), _ = load("files", [{"question": "2+2", "answer": 4}])
    assert sum_.answers[0].content == "4"
    _, drops = load("files", [{**PAIRS["TRL standard"], "score_chosen": 1, "score_rejected": 5}])
    assert "a pair whose rejected answer has the higher score" in drops.notes


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": Q, "completion": None}, "no `completion`"),
        ({"prompt": Q, "completion": ""}, "empty answer"),
        ({"prompt": 42, "completion": A}, "`prompt` is no list of messages, nor text"),
        ({"completion": A}, "no prompt"),
        ({"prompt": Q}, "no `completion`"),
    ],
)
def test_rows_without_an_answer_say_what_is_missing(load, row, reason):
    assert load("files", [SINGLES["TRL standard"], row])[1].reasons == {reason: 1}
    assert load("files", [SINGLES["messages"], {"messages": None}])[1].reasons == {"no `messages`": 1}


@pytest.mark.parametrize("label", ["true", "1", 2, None, 0.5])
def test_a_doubtful_label_is_an_error_with_its_line(load, tmp_path, label):
    rows = [{**SINGLES["Alpaca"], "label": True}, {**SINGLES["Alpaca"], "label": label}]
    with pytest.raises(UserError, match=rf"^{tmp_path}/rows.jsonl:2: `label` is {label!r}; write true"):
        load("files", rows)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "b"}, "it with datasets.files.source=hh"),
        ({"instruction": Q, "question": B, "output": A}, "both hold the prompt: .*columns.prompt=question decides"),
        ({"prompt": Q, "output": A, "response": B}, "`output` and `response` both hold the completion"),
        ({"prompt": Q, "answer": B, "messages": [USER, GOOD]}, "`messages` and `answer` both hold the answer: "),
        ({"instruction": Q, "input": A, "context": B, "output": A}, "columns.input=input or .*=context decides"),
        ({"topic": Q, "chosen": "The sky is blue", "rejected": "The sky is red"}, "`topic` does: .*prompt=topic; if"),
        ({"context": Q, "chosen": A, "rejected": B}, "`context` does: .*columns.prompt=context; if none: .*=null"),
        ({"chosen": A, "rejected": B}, "no column holds the prompt, nor .*columns.prompt=<column>"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "no column holds the prompt, nor"),
        ({"prompt": Q, "output_A": A, "output_B": B, "label": "A"}, "write 1 where `output_A` is the better answer"),
        ({"q": Q, "reply": A}, "columns q, reply are no known shape .*datasets.files.columns.prompt=q"),
    ],
)
def test_errors_say_what_to_do(load, row, says):
    with pytest.raises(UserError, match=says) as error:
        load("files", [row])
    assert "\n" not in str(error.value)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "tsv", "csv.gz"])
def test_tables_are_read_too(load, tmp_path, suffix):
    rows = [{"prompt": f"{Q} {n}", "completion": text, "label": n > 0} for n, text in enumerate(["None", "NA", "007"])]
    path = tmp_path / f"table.{suffix}"
    table = datasets.Dataset.from_list(rows)
    match suffix:
        case "parquet":
            table.to_parquet(path)
        case "arrow":
            table.save_to_disk(tmp_path / "saved")
            path = tmp_path / "saved" / "data-00000-of-00001.arrow"
        case _:
            table.to_pandas().to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    examples, _ = load("files", path)
    assert [example.answers for example in examples] == [answers("None"), answers("NA"), answers("007")]
    assert [example.desirable for example in examples] == [(False,), (True,), (True,)]


@pytest.mark.usefixtures("own_cache")
def test_parquet_keeps_conversations(load, tmp_path):
    datasets.Dataset.from_list([PAIRS["TRL implicit prompt"]] * 2).to_parquet(tmp_path / "t.parquet")
    examples, _ = load("files", tmp_path / "t.parquet")
    assert [example.answers for example in examples] == [answers(A, B)] * 2


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("content", [b"prompt,completion\na,b\nc,d,e,f\n", b"prompt,completion\na,\xff\n"])
def test_a_broken_table_is_one_line(load, tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"t\.csv: cannot be read as csv: ") as error:
        load("files", tmp_path / "t.csv")
    assert "\n" not in str(error.value)


def test_ids_follow_from_the_content_and_duplicates_are_numbered(load):
    rows = [PAIRS["Alpaca"], {**PAIRS["Alpaca"], "chosen": "Other."}, PAIRS["Alpaca"]]
    first, other, again = (example.id for example in load("files", rows)[0])
    assert again == f"{first}-2" != other
    assert [example.id for example in load("files", rows[1:])[0]] == [other, first]
