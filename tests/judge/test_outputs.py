"""What a comparison will write is tried before the first request is paid for."""

from __future__ import annotations

import json

import pytest

from prospect.errors import UserError
from tests.judge.test_run import run


@pytest.mark.parametrize("flag", ["-r", "-csv", "--report"])
def test_a_folder_or_a_file_in_the_way_is_told_first(stub, samples, flag):
    (samples.parent / "taken").write_text("")
    for wrong in (samples.parent, samples.parent / "taken" / "out"):
        with pytest.raises(UserError, match=f"^{flag} {wrong}"):
            run(stub, samples, flag, str(wrong))
    assert not stub.requests


def test_judgments_need_a_folder(stub, samples):
    (samples.parent / "judgments").write_text("")
    with pytest.raises(UserError, match=r"^-r .*judgments"):
        run(stub, samples)
    assert not stub.requests


@pytest.mark.parametrize(("flag", "other"), [("-r", "-f"), ("-csv", "-f"), ("--report", "-r")])
def test_no_file_takes_the_place_of_another(stub, samples, flag, other):
    before = samples.read_text()
    taken = samples if other == "-f" else samples.parent / "result.jsonl"
    with pytest.raises(UserError, match=f"the same file as {other}"):
        run(stub, samples, flag, str(taken))
    assert samples.read_text() == before
    assert not stub.requests


def test_a_check_leaves_nothing_behind(stub, samples):
    stub.faults = lambda key, attempt: "401"
    with pytest.raises(UserError):
        run(stub, samples, "-csv", str(samples.parent / "games.csv"), "--report", str(samples.parent / "page.html"))
    assert {file.name for file in samples.parent.iterdir()} == {"samples.json", "cache", "judgments"}
    assert not list((samples.parent / "judgments").iterdir())


def test_the_same_judge_twice_is_refused(stub, samples):
    with pytest.raises(UserError, match="-j: the same judge twice"):
        run(stub, samples, "-j", "stub")
    assert not stub.requests


def test_a_torn_last_line_of_results_blocks_nothing(stub, samples):
    (samples.parent / "result.jsonl").write_text('{"date": "2026-')
    _, result = run(stub, samples, "--report", str(samples.parent / "page.html"))
    lines = (samples.parent / "result.jsonl").read_text().splitlines()
    assert (len(lines), json.loads(lines[1])) == (2, result)
    assert "Win rate" in (samples.parent / "page.html").read_text()
