"""Files of rows: what is read in spite of a torn line, and what is refused."""

from __future__ import annotations

import json

import pytest

from prospect.errors import UserError
from prospect.judge.tables import load_rows

LINE = json.dumps({"exp_name": "kto", "total": 1, "candidate": {"wins": 1}, "baseline": {"wins": 0}})


@pytest.mark.parametrize("text", [f"{LINE}\n{LINE[:20]}", f"{LINE[:20]}\n{LINE}\n", f"{LINE}\n{LINE[:9]}\n{LINE}\n"])
def test_a_torn_line_of_results_blocks_nothing(tmp_path, capsys, text):
    file = tmp_path / "result.jsonl"
    file.write_text(text)
    assert all(row == json.loads(LINE) for row in load_rows(file))
    assert load_rows(file)
    told = capsys.readouterr().err
    assert told.count("is no whole line of results: left out") == 1
    assert str(file) in told


def test_other_files_have_no_torn_lines(tmp_path):
    file = tmp_path / "labels.jsonl"
    file.write_text('{"label": 1}\n{"lab')
    with pytest.raises(UserError, match="line 2"):
        load_rows(file)
