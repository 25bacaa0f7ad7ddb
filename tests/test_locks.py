"""Locks between processes: waited for, refused by name, and gone with their holder."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from prospect.errors import UserError
from prospect.locks import claimed, locked

FORK = multiprocessing.get_context("fork")


def hold(file: Path, ready) -> None:
    with claimed(file, "the folder"):
        ready.set()
        time.sleep(60)


def test_a_claim_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    ready = FORK.Event()
    child = FORK.Process(target=hold, args=(tmp_path / "lock", ready))
    child.start()
    assert ready.wait(30)
    with (
        pytest.raises(UserError, match=f"the folder is in use by process {child.pid} on "),
        claimed(tmp_path / "lock", "the folder"),
    ):
        pass
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join(30)
    with claimed(tmp_path / "lock", "the folder"):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")


def add(file: Path, count: Path) -> None:
    for _ in range(50):
        with locked(file):
            count.write_text(str(int(count.read_text()) + 1))


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    children = [FORK.Process(target=add, args=(tmp_path / "lock", count)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert count.read_text() == "150"
