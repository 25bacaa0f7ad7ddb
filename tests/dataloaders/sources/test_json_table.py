"""JSON files of either form, and one line for each way in which they can be broken."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dataloaders.sources import rows
from dataloaders.sources.json_table import JsonTable
from dataloaders.sources.rows import Row
from prospect.errors import UserError

ROWS: list[Row] = [{"a": 'quote " brace } bracket ]'}, {"b": [{"c": "\\"}, []]}, {}, {"d": "é\n"}]
LINES = "\n\n".join(json.dumps(row) for row in ROWS)
FORMS = {
    "list": json.dumps(ROWS),
    "pretty list": json.dumps(ROWS, indent=2, ensure_ascii=False) + "\n",
    "lines": LINES,
    "lines with ends": LINES.replace("\n", "\r\n") + "\r\n",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.json"


@pytest.mark.parametrize("encode", [str.encode, lambda text: gzip.compress(text.encode())], ids=["plain", "gzip"])
@pytest.mark.parametrize("start", ["", "\ufeff", " \n"], ids=["", "mark", "blank"])
@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_both_forms_are_told_by_their_content(file, text, start, encode):
    file.write_bytes(encode(start + text))
    table = JsonTable(file)
    assert len(table) == 4
    assert list(table) == ROWS
    assert table[3] == ROWS[3]


def test_places_are_lines(file):
    file.write_text('[\n {"a": 1},\n\n {"a": 2}]')
    assert [JsonTable(file).place(index) for index in (1, 0, 1)] == [f"{file}:{line}" for line in (4, 2, 4)]


BROKEN: dict[str, tuple[Any, str]] = {
    "no rows": ("[]", ": holds no rows"),
    "blank": (" \n", ": holds nothing but white space"),
    "text": ("hello", ": is not JSON"),
    "comma at the end": ('[{"a": 1},\n]', r":(1:10|2:1): invalid JSON: "),
    "comma missing": ('[{"a": 1}\n{"a": 2}]', ":2:1: invalid JSON: Expecting ',' delimiter"),
    "list not closed": ('[{"a": 1}', ":1:10: invalid JSON: Expecting ',' delimiter"),
    "text not closed": ('[{"a": "1}]', ":1:8: invalid JSON: Unterminated string"),
    "text after the list": ("[{}]\n{}", ":2:1: invalid JSON: Extra data"),
    "list of texts": ('[{}, "a"]', ":1: row 2 of the list is not an object"),
    "list of lists": ("[\n[1]]", ":1: row 1 of the list is not an object"),
    "list of numbers": ("[1, 2]", ":1: row 1 of the list is not an object"),
    "broken line": ('{"a": 1}\n{"a": }', r":2:7: invalid JSON: Expecting value \(rows stand one object a line"),
    "broken row": ('[{"a": 1},\n {"a": 2,}]', r":2:(9|10): invalid JSON: "),
    "one object over lines": ('{\n"a": 1}', ":1:2: invalid JSON: Expecting property name"),
    "line with a number": ('{"a": 1}\n7', r":2: a row is an object {\.\.\.}, this one is a int"),
    "raw NUL": ('{"a": "\0"}', ":1:8: invalid JSON: Invalid control character"),
    "not UTF-8": (b'{"a": 1}\n{"a": "\xff"}', ":2: byte 16 of the file is not UTF-8"),
    "UTF-16": ("[]".encode("utf-16"), ": is UTF-16; save it as UTF-8"),
    "cut gzip": (gzip.compress(LINES.encode())[:-12], ": damaged gzip file"),
    "too deep": ('{"a": ' + "[" * 200_000, ":1: JSON nested too deeply"),
}


@pytest.mark.parametrize(("content", "says"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_one_line_with_its_place(file, content, says):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        list(JsonTable(file))
    assert re.match(re.escape(str(file)) + says, str(error.value))
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_had_is_one_line(tmp_path):
    (tmp_path / "data.json").touch()
    with pytest.raises(
        UserError, match=r"datasets.x.path: there is no file .*/dat.json \(did you mean `data.json`\?\)"
    ):
        rows.local_file(str(tmp_path / "dat.json"), "datasets.x.path")
    with pytest.raises(UserError, match=r"is a directory; name one file in it \(data.json\)"):
        rows.local_file(str(tmp_path), "datasets.x.path")
    with pytest.raises(UserError, match=r"data.json is empty"):
        rows.local_file(str(tmp_path / "data.json"), "datasets.x.path")
