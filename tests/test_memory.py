"""Freed memory that is kept: what comes next finds its pages where they were."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from prospect import memory

SCRIPT = """
import resource, torch
from prospect import memory

def cleared():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(size * 2**18) for size in (3, 17, 30, 24, 9)]  # MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

memory._LARGEST = {largest}
if memory.keep_freed_memory():
    print(*(cleared() for _ in range(8)))
"""


@pytest.mark.parametrize(("largest", "kept"), [(memory._LARGEST, True), (2**20, False)], ids=["ours", "planted"])
def test_pages_are_cleared_once_they_have_their_places(largest: int, kept: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(largest=largest)], capture_output=True, text=True, check=True
    )
    if not done.stdout:
        pytest.skip("the C library is not glibc")
    first, *_, last = map(int, done.stdout.split())
    assert first > 1000
    assert (last < 100) == kept


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed_memory()
