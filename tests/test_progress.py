"""Progress in a log: rate and time left, on its own lines."""

from __future__ import annotations

import sys
import time

import pytest

from prospect.progress import Progress, progress


def test_a_line_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 110.0)
    state = Progress("dpo x", 700, "examples", done=100, note="loss 0.5", started=100.0, start_at=50)
    assert state.line() == "dpo x: 100/700 examples, 5/s, 2:00 left  loss 0.5"
    state.total = None
    assert state.line() == "dpo x: 100 examples, 5/s  loss 0.5"
    assert Progress("t", 36_100, "u", done=50, started=100.0, start_at=40).line().endswith("10:00:50 left")


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress("work", 10, "items") as bar:
        bar.started = bar.last_line = 0.0
        for _ in range(10):
            now[0] += 4
            bar.advance(1)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in printed] == ["work: 4/10 items", "work: 8/10 items", "work: 10/10 items"]


def test_other_processes_count_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 10, "items", done=3, show=False) as bar:
        bar.advance(2)
        assert bar.done == 5
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with progress("work", 2, "items") as bar:
        bar.advance(2, note="done now")
    assert "work" in capsys.readouterr().out
