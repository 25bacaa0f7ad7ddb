"""AlpacaEval: for evaluation only."""

from __future__ import annotations

import pytest

from dataloaders.sources.source import answers
from prospect.config.schema import Split
from prospect.errors import UserError

ROWS = [{"instruction": "Say hi", "output": "Hi!", "dataset": "koala", "generator": "x"}]


@pytest.mark.parametrize("split", [Split.test, Split.all])
def test_a_local_copy_is_all_test(load, split):
    (example,), _ = load("alpacaeval", ROWS, split)
    assert (example.prompt[0].content, example.answers, example.category) == ("Say hi", answers("Hi!"), "koala")


def test_it_has_no_training_part(load):
    with pytest.raises(UserError, match=r"datasets\.alpacaeval: there is no train part; it has test"):
        load("alpacaeval", ROWS, Split.train)
