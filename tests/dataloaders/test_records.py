"""Which records an example gives to each kind of trainer."""

from __future__ import annotations

import pytest

from dataloaders.example import Example
from dataloaders.records import RecordKind, records
from dataloaders.sources.source import answers
from prospect.batch import Role
from prospect.conversation import Message

PROMPT = (Message("user", "q"),)
PAIRED = Example("p", "d", PROMPT, answers("a", "b", "c"), pairs=((0, 1), (2, 1)), imitate=2)
LABELLED = Example("l", "d", PROMPT, answers("a", "b"), desirable=(True, False), imitate=None)
PLAIN = Example("s", "d", PROMPT, answers("a"))
GOOD, BAD = Role.chosen, Role.rejected


@pytest.mark.parametrize(
    ("example", "kind", "wanted"),
    [
        (PAIRED, RecordKind.answers, [("p", ("c",), (GOOD,))]),
        (PAIRED, RecordKind.pairs, [("p", ("a", "b"), (GOOD, BAD)), ("p/1", ("c", "b"), (GOOD, BAD))]),
        (
            PAIRED,
            RecordKind.labelled,
            [("p/0", ("a",), (GOOD,)), ("p/1", ("b",), (BAD,)), ("p/2", ("c",), (GOOD,)), ("p/3", ("b",), (BAD,))],
        ),
        (LABELLED, RecordKind.answers, []),
        (LABELLED, RecordKind.pairs, []),
        (LABELLED, RecordKind.labelled, [("l/0", ("a",), (GOOD,)), ("l/1", ("b",), (BAD,))]),
        (PLAIN, RecordKind.answers, [("s", ("a",), (GOOD,))]),
        (PLAIN, RecordKind.labelled, []),
    ],
)
def test_records_of_an_example(example: Example, kind: RecordKind, wanted: list[object]) -> None:
    found = list(records(example, kind))
    assert [(record.id, tuple(a.content for a in record.answers), record.roles) for record in found] == wanted
    assert all(record.prompt == PROMPT and record.dataset == "d" for record in found)
