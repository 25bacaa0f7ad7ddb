"""UltraFeedback binarized: the last turns of two conversations."""

from __future__ import annotations

import pytest

from dataloaders.sources.source import answers


def turns(answer: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]


def test_the_last_turns_are_the_answers(load):
    row = {"prompt": "q  q", "prompt_id": "x", "chosen": turns("a  b"), "rejected": turns("c")}
    (example,), drops = load("ultrabin", [row])
    assert example.prompt[0].content == "q q"
    assert (example.answers, example.pairs, example.imitate) == (answers("a b", "c"), ((0, 1),), 0)
    assert example.keep == "start"
    assert drops.rows_read == 1


@pytest.mark.parametrize(
    ("rejected", "reason"),
    [
        (turns(""), "empty answer"),
        (turns(None), "content in `rejected` is not text"),
        (turns("a"), "chosen equals rejected"),
        ([], "`rejected` is no list of messages"),
        ("text", "`rejected` is no list of messages"),
    ],
)
def test_bad_rows_are_dropped_and_counted(load, rejected, reason):
    rows = [{"prompt": "q", "chosen": turns("a"), "rejected": other} for other in (turns("b"), rejected)]
    examples, drops = load("ultrabin", rows)
    assert len(examples) == 1
    assert drops.reasons == {reason: 1}
