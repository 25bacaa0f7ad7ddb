"""One's own data: every known shape is recognised, and what is wrong is said with its place."""

from __future__ import annotations

import json
from typing import Any

import datasets
import pytest

from prospect.conversation import Message
from prospect.errors import UserError

Q, A, B = "Why?", "Because.", "No."


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def shared_gpt(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


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
}


@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
def test_pairs(load, row):
    (example,), drops = load("files", [row])
    assert example.prompt == (Message("user", Q),)
    assert (example.answers, example.pairs, example.imitate) == ((A, B), ((0, 1),), 0)
    assert (example.desirable, example.scores, example.dataset, drops.reasons) == ((), (), "files", {})


SINGLES: dict[str, dict[str, Any]] = {
    "TRL standard": {"prompt": Q, "completion": A},
    "TRL conversational": {"prompt": [USER], "completion": [GOOD]},
    "messages": {"messages": [USER, GOOD]},
    "ShareGPT": {"conversations": [shared_gpt("human", Q), shared_gpt("gpt", A)]},
    "Alpaca": {"instruction": Q, "input": "", "output": A},
}


@pytest.mark.parametrize("row", SINGLES.values(), ids=SINGLES)
def test_single_answers(load, row):
    (example,), _ = load("files", [row])
    assert (example.prompt, example.answers, example.imitate) == ((Message("user", Q),), (A,), 0)
    assert (example.pairs, example.desirable) == ((), ())


@pytest.mark.parametrize("label", [True, False, 1, 0])
@pytest.mark.parametrize("row", SINGLES.values(), ids=SINGLES)
def test_labelled_answers(load, row, label):
    (example,), _ = load("files", [{**row, "label": label}])
    assert (example.prompt, example.answers) == ((Message("user", Q),), (A,))
    assert (example.desirable, example.imitate) == ((bool(label),), 0 if label else None)
    assert load("files", [{**row, "kto_tag": label}])[0] == [example]


def test_prompts_alone(load):
    (example,), _ = load("files", [{"prompt": Q}])
    assert (example.prompt, example.answers, example.imitate) == ((Message("user", Q),), (), None)


def test_instructions_carry_their_input_system_and_history(load):
    row = {"instruction": "Add", "input": "1, 2", "output": "3", "system": "Be terse", "history": [["Hi", "Hello"]]}
    (example,), _ = load("files", [row])
    turns = [(turn.role, turn.content) for turn in example.prompt]
    assert turns == [("system", "Be terse"), ("user", "Hi"), ("assistant", "Hello"), ("user", "Add\n1, 2")]


def test_an_implicit_text_prompt_is_what_both_texts_begin_with(load):
    (example,), _ = load("files", [{"chosen": "The sky is blue.", "rejected": "The sky is green."}])
    assert (example.prompt[0].content, example.answers) == ("The sky is", (" blue.", " green."))


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
    assert (example.prompt[0].content, example.answers) == (Q, (A, B))


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
        assert example.answers == (row["chosen"]["value"], row["rejected"]["value"])


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
        ({"prompt": [said("tool", "x")]}, "role `tool` in `prompt`"),
        ({"prompt": [{"role": ["user"]}]}, "role `['user']` in `prompt`"),
        ({"prompt": [{"role": "user", "content": None}]}, "content in `prompt` is not text"),
        ({"prompt": ["x"]}, "`prompt` holds something that is no message"),
        ({"prompt": []}, "`prompt` is no list of messages, nor text"),
        ({"chosen": [USER, GOOD], "rejected": [BAD]}, "`chosen` is not one turn"),
        ({"chosen": [USER]}, "`chosen` is not an assistant turn"),
        ({"history": ["ab"]}, "`history` is no list of [question, answer]"),
        ({"score_chosen": float("inf"), "score_rejected": 1}, "score is not finite"),
    ],
)
def test_bad_rows_are_dropped_and_counted_with_their_place(load, tmp_path, row, reason):
    fine = PAIRS["TRL standard"]
    examples, drops = load("files", [fine, {**fine, **row}])
    assert len(examples) == 1
    assert drops.places == {reason: [f"{tmp_path}/rows.jsonl:2"]}


@pytest.mark.parametrize("label", ["true", "1", 2, None, 0.5])
def test_a_doubtful_label_is_an_error_with_its_line(load, tmp_path, label):
    rows = [{**SINGLES["Alpaca"], "label": True}, {**SINGLES["Alpaca"], "label": label}]
    with pytest.raises(UserError, match=rf"^{tmp_path}/rows.jsonl:2: `label` is {label!r}; write true"):
        load("files", rows)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**SINGLES["Alpaca"], "score": "7"}, ":1: `score` is '7'; write a number"),
        ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "b"}, "datasets.<name>.source=hh"),
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
    assert [example.answers for example in examples] == [("None",), ("NA",), ("007",)]
    assert [example.desirable for example in examples] == [(False,), (True,), (True,)]


@pytest.mark.usefixtures("own_cache")
def test_parquet_keeps_conversations(load, tmp_path):
    datasets.Dataset.from_list([PAIRS["TRL implicit prompt"]] * 2).to_parquet(tmp_path / "t.parquet")
    examples, _ = load("files", tmp_path / "t.parquet")
    assert [example.answers for example in examples] == [(A, B), (A, B)]


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
