"""Committed folders: whole and verified, or not there; whatever is there before survives a failure."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prospect.checkpoint import commit
from prospect.checkpoint.commit import MANIFEST, committed, fault, link_tree, recover, replace, write_text
from prospect.errors import MachineError
from tests.planted import plant


def write(folder: Path, text: str = "one", then: Callable[[], object] = lambda: None) -> None:
    with committed(folder) as building:
        (building / "a.bin").write_text(text * 100)
        (building / "deep").mkdir()
        (building / "deep" / "b.bin").write_bytes(b"")
        then()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_committed_folder_is_whole(tmp_path: Path) -> None:
    write(tmp_path / "x")
    assert fault(tmp_path / "x") is None
    files = json.loads((tmp_path / "x" / MANIFEST).read_text())["files"]
    assert set(files) == {"a.bin", "deep/b.bin"}
    assert names(tmp_path) == ["x"]


def test_a_second_one_takes_its_place(tmp_path: Path) -> None:
    write(tmp_path / "x")
    write(tmp_path / "x", "two")
    assert (tmp_path / "x" / "a.bin").read_text().startswith("two")
    assert fault(tmp_path / "x") is None
    assert names(tmp_path) == ["x"]


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda x: (x / "a.bin").write_bytes(b""), "a.bin has 0 bytes, not 300"),
        (lambda x: (x / "a.bin").write_text("one" * 99), "a.bin has 297 bytes, not 300"),
        (lambda x: (x / "a.bin").write_text("one" * 100 + "!"), "a.bin has 301 bytes, not 300"),
        (lambda x: (x / "a.bin").write_bytes(bytes(300)), "a.bin differs from what was written"),
        (lambda x: flip(x / "a.bin"), "a.bin differs from what was written"),
        (lambda x: (x / "deep" / "b.bin").unlink(), "deep/b.bin is missing"),
        (lambda x: (x / MANIFEST).unlink(), f"no readable {MANIFEST}"),
        (lambda x: (x / MANIFEST).write_text((x / MANIFEST).read_text()[:40]), f"no readable {MANIFEST}"),
        (lambda x: (x / MANIFEST).write_text("{}"), f"no readable {MANIFEST}"),
    ],
)
def test_damage_is_said(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    write(tmp_path / "x")
    damage(tmp_path / "x")
    assert fault(tmp_path / "x") == said


def test_nothing_there_is_a_fault(tmp_path: Path) -> None:
    assert fault(tmp_path / "x") is not None
    (tmp_path / "x").mkdir()
    assert fault(tmp_path / "x") is not None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("where", ["inside", "_write_manifest", "_flush", "replace"])
def test_a_disk_that_fails_leaves_the_old_folder(
    tmp_path: Path, number: int, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x")

    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        if where != "inside":
            patch.setattr(commit, where, fail)
        with pytest.raises(MachineError, match=f"x: could not be written .{os.strerror(number)}; .* bytes free"):
            write(tmp_path / "x", "two", fail if where == "inside" else list)
    assert fault(tmp_path / "x") is None
    assert (tmp_path / "x" / "a.bin").read_text().startswith("one")
    assert names(tmp_path) == ["x"]


def fail() -> None:
    raise KeyError


def test_an_error_of_the_writer_leaves_the_old_folder(tmp_path: Path) -> None:
    write(tmp_path / "x")
    with pytest.raises(KeyError):
        write(tmp_path / "x", "two", fail)
    assert fault(tmp_path / "x") is None
    assert names(tmp_path) == ["x"]


class Killed(BaseException):
    """A stand-in for the end of the process."""


@pytest.mark.parametrize("at", [1, 2])
def test_a_kill_between_renames_is_recovered(tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "x")
    (tmp_path / ".tmp-x-1").mkdir()
    new = tmp_path / "new"
    write(new, "two")
    renames = 0
    rename = Path.rename

    def counted(self: Path, target: Path) -> Path:
        nonlocal renames
        done = rename(self, target)
        renames += 1
        if renames == at:
            raise Killed
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted)
        with pytest.raises(Killed):
            replace(new, tmp_path / "x")
    recover(tmp_path)
    assert fault(tmp_path / "x") is None
    assert (tmp_path / "x" / "a.bin").read_text().startswith("one" if at == 1 else "two")
    assert not list(tmp_path.glob(".*"))


def test_planted_overwriting_in_place_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were an old folder written into, an error would leave neither the old state nor the new."""
    write(tmp_path / "x")
    plant(monkeypatch, committed, 'f".tmp-{folder.name}-{uuid.uuid4().hex[:8]}"', "folder.name")
    plant(monkeypatch, Path.mkdir, "except OSError:", "except FileExistsError:\n        pass\n    except OSError:")
    with pytest.raises(KeyError):
        write(tmp_path / "x", "two", fail)
    assert fault(tmp_path / "x") is not None


def test_a_small_file_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "f.json"
    write_text(file, "one")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full"):
            write_text(file, "two")
    assert file.read_text() == "one"
    write_text(file, "zwei – 二")
    assert file.read_text(encoding="utf-8") == "zwei – 二"


def test_a_linked_tree_survives_its_source(tmp_path: Path) -> None:
    write(tmp_path / "x")
    link_tree(tmp_path / "x", tmp_path / "y")
    assert (tmp_path / "y" / "a.bin").stat().st_ino == (tmp_path / "x" / "a.bin").stat().st_ino
    shutil.rmtree(tmp_path / "x")
    assert fault(tmp_path / "y") is None


def test_a_tree_is_copied_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "x")
    monkeypatch.setattr(os, "link", lambda a, b: (_ for _ in ()).throw(OSError(errno.EXDEV, "other device")))
    link_tree(tmp_path / "x", tmp_path / "y")
    assert fault(tmp_path / "y") is None
