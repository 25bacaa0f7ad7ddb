"""Sample files of every accepted form, and what is counted when rows do not match."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from prospect.errors import UserError
from prospect.judge.options import Options
from prospect.judge.samples import load_match, select


def write(file: Path, rows: list[dict[str, Any]], **config: Any) -> Path:
    file.write_text(json.dumps({"sampled_at": "now", "config": config, "samples": rows}))
    return file


def row(i: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"Q{i}", "chosen": f"c{i}", "policy": f"p{i}", **more}


def test_one_file(tmp_path):
    file = write(tmp_path / "s.json", [row(0), row(1)], exp_name="kto", assistant_prefix="\n<|assistant|>\n")
    match = load_match(Options(file))
    assert [(p.conversation, p.candidate, p.baseline) for p in match.pairs] == [("Q0", "p0", "c0"), ("Q1", "p1", "c1")]
    assert (match.exp_name, match.candidate.name, match.baseline.name) == ("kto", "policy", "chosen")
    swapped = load_match(Options(file, candidate_key="chosen", baseline_key="policy"))
    assert [(p.candidate, p.baseline) for p in swapped.pairs] == [("c0", "p0"), ("c1", "p1")]


def test_assistant_tag_at_the_end_is_not_shown(tmp_path):
    file = write(tmp_path / "s.json", [row(0, prompt="<u>\nhi\n<a>\n")], assistant_prefix="\n<a>\n")
    assert load_match(Options(file)).pairs[0].conversation == "<u>\nhi\n"


@pytest.mark.parametrize("form", ["list", "jsonl", "alpaca", "one line"])
def test_other_forms(tmp_path, form):
    rows = [row(0)] if form == "one line" else [row(0), row(1)]
    key = "policy"
    if form == "alpaca":
        rows = [{"instruction": r["prompt"], "output": r["policy"], "chosen": r["chosen"]} for r in rows]
        key = "output"
    file = tmp_path / ("s.jsonl" if form in ("jsonl", "one line") else "s.json")
    file.write_text("\n".join(map(json.dumps, rows)) if file.suffix == ".jsonl" else json.dumps(rows))
    match = load_match(Options(file))
    assert [p.candidate for p in match.pairs] == ["p0", "p1"][: len(rows)]
    assert (match.candidate.column, match.exp_name) == (key, "s")


def test_join_with_another_file(tmp_path):
    one = write(tmp_path / "kto.json", [row(0), row(1), row(2), row(2)], exp_name="kto")
    other = write(tmp_path / "sft.json", [row(3), row(2, policy="s2"), row(0, policy="s0")], exp_name="sft")
    match = load_match(Options(one, other=other))
    assert [(p.candidate, p.baseline) for p in match.pairs] == [("p0", "s0"), ("p2", "s2")]
    assert (match.candidate.name, match.baseline.name) == ("kto", "sft")
    assert match.counts == {"rows": 4, "duplicates": 1, "empty": 0, f"only in {one}": 1, f"only in {other}": 1}
    assert any("come twice" in note for note in match.notes)
    assert any(f"1 only in {other}" in note for note in match.notes)


def test_join_by_messages_across_templates(tmp_path):
    def with_template(tag: str, answer: str) -> dict[str, Any]:
        turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
        return row(0, prompt=f"{tag}hi", policy=answer, messages=[*turns, {"role": "user", "content": "why"}])

    one = write(tmp_path / "a.json", [with_template("<u>", "p")])
    other = write(tmp_path / "b.json", [with_template("[U]", "q")])
    pair = load_match(Options(one, other=other)).pairs[0]
    assert (pair.candidate, pair.baseline) == ("p", "q")
    assert pair.conversation == "USER: hi\n\nASSISTANT: yes?\n\nUSER: why"


def test_several_samples_of_a_prompt(tmp_path):
    numbered = [row(0, sample=k, policy=f"p{k}") for k in (1, 0, 1)]
    match = load_match(Options(write(tmp_path / "a.json", numbered)))
    assert sorted((p.sample, p.candidate) for p in match.pairs) == [(0, "p0"), (1, "p1")]
    assert len({p.prompt_id for p in match.pairs}) == 1
    assert match.counts["duplicates"] == 1
    unnumbered = [row(0, policy=text) for text in ("x", "y", "x")]
    match = load_match(Options(write(tmp_path / "b.json", unnumbered)))
    assert [(p.sample, p.candidate) for p in match.pairs] == [(0, "x"), (1, "y")]


def test_selection_is_stable(tmp_path):
    rows = [row(i, sample=k, policy=f"p{i}{k}") for i in range(50) for k in range(2)]
    pairs = load_match(Options(write(tmp_path / "s.json", rows))).pairs
    chosen = select(pairs, 10, seed=0)
    assert len(chosen) == 20
    shuffled = random.Random(1).sample(pairs, len(pairs))
    assert select(shuffled, 10, seed=0) == chosen
    assert set(chosen) <= set(select(pairs, 20, seed=0))
    assert {p.prompt_id for p in chosen} != {p.prompt_id for p in select(pairs, 10, seed=1)}
    assert len(select(pairs, None, seed=0)) == 100


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("[]", {}, "at least one row"),
        ('[{"prompt": "q", "chosen": "c"}]', {}, "no column `policy`"),
        ('[{"prompt": "q", "chosn": "c", "policy": "p"}]', {}, "did you mean `chosn`"),
        ('[{"prompt": "q", "chosen": null, "policy": "p"}]', {}, "row 1: `chosen` is null, not a text"),
        ('[{"prompt": "q", "chosen": "c", "policy": "p"}, 3]', {}, "row 2: expected an object"),
        ('{"samples": [{"prompt": ', {}, "line 1"),
        ('{"prompt": "q"}\n{"prompt', {}, "line 2"),
        ('[{"prompt": "q", "policy": "p"}]', {"baseline_key": "policy"}, "same column"),
    ],
)
def test_mistakes(tmp_path, content, options, message):
    file = tmp_path / "s.json"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        load_match(Options(file, **options))


def test_nothing_in_common_and_same_file(tmp_path):
    one, other = write(tmp_path / "a.json", [row(0)]), write(tmp_path / "b.json", [row(1)])
    with pytest.raises(UserError, match="nothing to compare"):
        load_match(Options(one, other=other))
    with pytest.raises(UserError, match="same column `policy` of the same file"):
        load_match(Options(one, other=one))


def test_lone_surrogates_and_odd_bytes_can_be_sent(tmp_path):
    file = tmp_path / "s.json"
    file.write_text(json.dumps([row(0, policy="a\ud800b\x00")]))
    assert load_match(Options(file)).pairs[0].candidate == "a?b\x00"


@pytest.mark.parametrize(
    "differ",
    [{"input": "about {}"}, {"context": "story {}"}, {"system": "Answer as {}."}],
    ids=lambda row: next(iter(row)),
)
def test_what_stands_beside_an_instruction_is_part_of_the_prompt(tmp_path, differ):
    """The same instruction with another input asks something else."""
    ((name, words),) = differ.items()

    def rows(side: str, order: list[int]) -> list[dict[str, Any]]:
        return [{"instruction": "Write.", name: words.format(i), "output": f"{side} {i}"} for i in order]

    one, other = tmp_path / "a.json", tmp_path / "b.json"
    one.write_text(json.dumps(rows("ours", [0, 1, 2, 3])))
    other.write_text(json.dumps(rows("theirs", [2, 3, 0, 1])))
    pairs = load_match(Options(one, other=other)).pairs
    assert [pair.candidate.split()[1] for pair in pairs] == [pair.baseline.split()[1] for pair in pairs] == [*"0123"]
    assert all(words.format(i) in pair.conversation for i, pair in enumerate(pairs))
    assert len({pair.prompt_id for pair in pairs}) == 4


def test_an_input_that_the_prompt_has_already_is_not_said_twice(tmp_path):
    file = write(tmp_path / "a.json", [row(0, prompt="Sum up:\nsnow fell", input="snow fell"), row(1, input="")])
    assert [pair.conversation for pair in load_match(Options(file)).pairs] == ["Sum up:\nsnow fell", "Q1"]


def test_an_output_of_null_is_empty_and_said(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps([{"instruction": "Q", "output": None, "chosen": "c"}]))
    match = load_match(Options(file))
    assert match.pairs[0].candidate == ""
    assert "1 answers are empty" in match.notes[0]
