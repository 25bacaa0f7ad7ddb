"""The facts of a run."""

from __future__ import annotations

import json
import subprocess

import pytest

from prospect.checkpoint.manifest import Parent, facts


def test_facts_can_be_written_down() -> None:
    found = facts([Parent("runs/sft/LATEST", "abc", "def")], {"pairs/train": "key"}, 7, "1 × cpu")
    assert json.loads(json.dumps(found)) == found
    assert found["parents"] == [{"path": "runs/sft/LATEST", "digest": "abc", "files": "def"}]
    assert (found["seed"], found["data"], found["hardware"]) == (7, {"pairs/train": "key"}, "1 × cpu")
    assert {"torch", "transformers", "tokenizers", "numpy"} <= set(found["packages"])


def test_the_commit_is_that_of_the_checkout() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        pytest.skip("this is no git checkout")
    assert facts([], {}, 1, "")["code"]["commit"] == head.stdout.strip()


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert facts([], {}, 1, "")["code"] == {"commit": None, "diff": None}
