"""Parents of a run: known by their weights' files, and refused once these have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prospect.checkpoint import parents
from prospect.checkpoint.commit import committed
from prospect.checkpoint.parents import check_parents, files_hash
from prospect.errors import UserError
from tests.planted import plant


def model(folder: Path, weights: bytes, card: str = "card") -> Path:
    with committed(folder) as building:
        (building / "model.safetensors").write_bytes(weights)
        (building / "README.md").write_text(card)
    return folder


def test_only_weights_count(tmp_path: Path) -> None:
    one = model(tmp_path / "one", b"weights")
    assert files_hash(one) == files_hash(model(tmp_path / "other", b"weights", "another card"))
    assert files_hash(one) != files_hash(model(tmp_path / "third", b"Weights"))


def test_a_folder_of_others_and_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"1")
    before, alone = files_hash(folder), files_hash(folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes(b"2")
    assert files_hash(folder) != before
    assert files_hash(folder / "pytorch_model.bin") != alone


def _refusal(tmp_path: Path) -> str | None:
    parent = model(tmp_path / "sft", b"old")
    known: list[dict[str, Any]] = [
        {"path": str(parent), "files": files_hash(parent)},
        {"path": "random weights", "files": None},
    ]
    check_parents(tmp_path / "dpo", known)
    model(parent, b"new")
    try:
        check_parents(tmp_path / "dpo", known)
    except UserError as error:
        return str(error)
    return None


def test_a_changed_parent_is_refused_in_one_line(tmp_path: Path) -> None:
    said = _refusal(tmp_path)
    assert said is not None
    assert said.startswith(
        f"exp_name: {tmp_path / 'dpo'} was started from {tmp_path / 'sft'}, whose weights have changed"
    )
    assert "\n" not in said


def test_planted_bug_of_not_looking_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, parents.check_parents, '!= parent["files"]', '== ""')
    assert _refusal(tmp_path) is None


def test_a_parent_that_is_gone_is_no_matter(tmp_path: Path) -> None:
    check_parents(tmp_path, [{"path": str(tmp_path / "gone"), "files": "hash"}, {"path": "from an older version"}])
