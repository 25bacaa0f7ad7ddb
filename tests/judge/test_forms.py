"""The shipped prompts against a server: weights, JSON, brackets, rubrics, and servers that lack them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from prospect.conversation import answered
from prospect.errors import UserError
from prospect.judge.games import Status
from prospect.judge.judges import Answered, grade
from prospect.judge.options import Asking
from prospect.judge.prompt import load_prompt
from prospect.judge.verdict import Verdict, read_weights
from tests.judge.test_run import QUICK, run

# Of the messages that the published texts give for fixed contents; where they come from is said in prompts/NOTICE.
PUBLISHED = {"alpacaeval": "0c2742fe0fece151", "mtbench": "0ee27a5b4fc1fd2e", "arena": "268e4a10e1b467b9"}


def policy_wins(first: str, second: str) -> bool:
    return first.startswith("Policy")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_prompts_are_verbatim(name):
    prompt = replace(load_prompt(name), marks=False)
    messages = [prompt.messages(b"", "q", "a", "b"), prompt.messages(b"", "q", "a", "b", reference="r")]
    assert hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16] == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_texts_stand_between_marks_in_published_prompts_too(name):
    messages = load_prompt(name).messages(b"salt", "Why?", "one {second}", "zwei")
    mark = messages[0]["content"].rsplit('"', 2)[1]
    assert mark.startswith("=== ")
    for text in ("Why?", "one {second}", "zwei"):
        assert messages[1]["content"].count(f"{mark}\n{text}\n{mark}") == 1


def test_weights_of_label_tokens():
    found = read_weights({"m": -0.5, " m": -2.0, "M": -1.5, "the": -3.0}, "mM")
    assert found is not None
    m, big = 2.718281828459045**-0.5 + 2.718281828459045**-2.0, 2.718281828459045**-1.5
    assert found.share == pytest.approx(m / (m + big), abs=1e-12)
    assert found.outside == pytest.approx(1 - m - big, abs=1e-12)
    assert found.verdict is Verdict.first
    assert read_weights({"the": -0.1, "m": -3.0}, "mM") is None, "most of it is about other tokens"
    assert read_weights({}, "mM") is read_weights(None, "mM") is None
    only = read_weights({"M": -0.1}, "mM")
    assert only is not None
    assert only.share == 0.0


def test_alpacaeval_by_weights(stub, samples):
    def weigh(first: str, second: str) -> dict[str, float]:
        m, big = (0.6, 0.2) if policy_wins(first, second) else (0.1, 0.7)
        return {"m": m, "M": big, "Hm": 0.15}

    stub.weigh = weigh
    _, result = run(stub, samples, "--prompt", "alpacaeval")
    assert result["win_rate"] == pytest.approx((0.75 + 0.875) / 2)
    assert result["read_from"] == {"weights": 80}
    assert result["outside_labels"] == pytest.approx(0.2)
    body = stub.requests[-1]
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"], body["temperature"]) == (1, True, 20, 1)


def test_server_that_ignores_logprobs_is_read_as_json_or_text(stub, samples, tmp_path):
    stub.judge = lambda first, second: "m" if policy_wins(first, second) else "M"
    _, text = run(stub, samples, "--prompt", "alpacaeval")
    assert (text["win_rate"], text["read_from"]) == (1.0, {"label": 80})
    assert not {"logprobs", "response_format"} & stub.requests[-1].keys()
    assert stub.requests[-1]["temperature"] == 0, "drawn at random a label would say nothing"
    stub.structured = lambda conversation, first, second: {"winner": "m" if policy_wins(first, second) else "M"}
    _, structured = run(stub, samples, "--prompt", "alpacaeval", "--cache", str(tmp_path / "other"))
    assert (structured["win_rate"], structured["read_from"]) == (1.0, {"structure": 80})
    schema = stub.requests[-1]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["winner"]["enum"] == ["m", "M"]


def test_server_that_refuses_logprobs_and_schemas(stub, samples):
    def refuses(body: dict[str, Any]) -> str | None:
        for name in ("logprobs", "response_format"):
            if name in body:
                return f"Unsupported parameter: {name}"
        return None

    stub.refuses = refuses
    stub.judge = lambda first, second: "m" if policy_wins(first, second) else "M"
    _, result = run(stub, samples, "--prompt", "alpacaeval")
    assert (result["win_rate"], result["read_from"]) == (1.0, {"label": 80})


def test_arena_counts_strong_verdicts(stub, samples):
    stub.judge = lambda first, second: "My own answer.\n\n" + ("[[A>>B]]" if policy_wins(first, second) else "[[B>A]]")
    _, result = run(stub, samples, "--prompt", "arena")
    assert result["win_rate"] == 1.0
    assert result["strong"] == {"wins": 40, "losses": 0}


def test_mtbench_shows_the_reference_where_there_is_one(stub, samples):
    content = json.loads(samples.read_text())
    content["samples"][3]["reference"] = "It is 42."
    samples.write_text(json.dumps(content))
    stub.judge = lambda first, second: "[[C]]"
    _, result = run(stub, samples, "--prompt", "mtbench")
    assert (result["win_rate"], result["ties"]) == (0.5, 40)
    with_it = [body for body in stub.requests if "It is 42." in body["messages"][-1]["content"]]
    assert len(with_it) == 2
    assert all("reference answer" in body["messages"][0]["content"] for body in with_it)


def test_rubric_scores_decide(stub, samples):
    def scores(conversation: str, first: str, second: str) -> dict[str, Any]:
        good, poor = dict.fromkeys(names, 8), dict.fromkeys(names, 5)
        return {"1": good, "2": poor} if policy_wins(first, second) else {"1": poor, "2": good}

    names = list(load_prompt("rubric").criteria)
    stub.structured = scores
    _, result = run(stub, samples, "--prompt", "rubric")
    assert (result["win_rate"], result["read_from"]) == (1.0, {"structure": 80})


def test_scores_of_single_answers(stub, samples, tmp_path):
    stub.structured = lambda conversation, answer: {"overall": min(10, len(answer) // 3)}
    _, result = run(stub, samples, "--prompt", "score")
    assert result["spent"]["games"] == 80, "each answer once"
    assert result["position"] is None
    asking = Asking(judge="stub", base_url=stub.url, prompt="score", cache=tmp_path / "cache")
    items = [Answered("Why?", answered("a" * n)) for n in (6, 15, 300)]
    grades = grade(asking, items, QUICK)
    assert grades.scores == [2, 5, 10]
    stub.structured = lambda conversation, answer: {"overall": 11}
    grades = grade(replace(asking, cache=tmp_path / "more"), items, QUICK)
    assert (grades.scores, grades.faults) == ([None] * 3, [(Status.unparsed, "no verdict")] * 3)
    with pytest.raises(UserError, match="single answers need a reward model"):
        grade(replace(asking, prompt="halos"), items, QUICK)


def test_rotated_labels_change_from_pair_to_pair_not_between_orders(stub, samples):
    seen: Counter[str] = Counter()

    def by_text(body: dict[str, Any]) -> None:
        text = body["messages"][-1]["content"]
        if "RESPONSE" in text:
            labels = text.split(" RESPONSE ")[1][0] + text.split(" RESPONSE ")[2][0]
            question = text.split("Question ")[1].split("?")[0]
            seen[f"{question} {labels}"] += 1

    stub.refuses = by_text
    stub.judge = lambda first, second: "Neither."
    run(stub, samples, "--rotate-labels")
    assert set(seen.values()) == {2}
    assert {name.split()[1] for name in seen} == {"12", "21", "AB", "BA", "mM", "Mm"}


def test_repeat_tells_the_judges_noise(stub, samples):
    stub.judge = lambda first, second: f"Response {1 + len(stub.requests) % 2}"
    _, result = run(stub, samples, "--repeat", "3", "-mc", "10")
    assert result["spent"]["games"] == 60
    assert 0 < result["repeat_sd"] < 0.6
    assert len({body["seed"] for body in stub.requests}) == 3
    _, again = run(stub, samples, "--repeat", "3", "-mc", "10")
    assert again["spent"]["asked"] == 0
    assert again["win_rate"] == result["win_rate"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("verdict: rubric", "needs names"),
        ("verdict: votes", "none of words"),
        ("criteria: [tone]", "verdict: rubric"),
        ("verdict: rubric\ncriteria: {tone: -1}", "weights above 0"),
        ("verdict: rubric\ncriteria: [tone]\nscale: [5, 1]", "lower one first"),
        ("marks: 3", "expected bool"),
        ("max_tokens: true", "expected int"),
    ],
)
def test_mistakes_in_a_rubric(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    base = 'name: m\nversion: 1\nlabels: "12"\nuser: "{conversation} {first} {second}"\n'
    file.write_text(base + ("" if "max_tokens" in text else "max_tokens: 5\n") + text)
    with pytest.raises(UserError, match=message):
        load_prompt(str(file))
