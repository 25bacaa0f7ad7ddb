"""The documentation's own commands and code, taken from its pages and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standins import CHECKOUT, Place, judged

PAGES = sorted([CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md")])
# Installation; the demo, which has its own test; measurements, which tests/bench runs small.
ELSEWHERE = ("make ", "conda ", "export ", "python bench/", "FEW=")

WATCHED = "deep-qwen.md"  # tests/recipes runs it and looks at what comes out


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(ELSEWHERE)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with judged(Place(tmp_path)) as place:
        yield place


@pytest.mark.long
@pytest.mark.parametrize("page", [p for p in PAGES if commands(p) and p.name != WATCHED], ids=lambda p: p.name)
def test_commands_of_a_page_run_in_order(page: Path, place: Place) -> None:
    for command in commands(page):
        done = place.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.long
def test_the_tutorial_builds_a_loss_that_trains(tmp_path: Path) -> None:
    """A checkout without SimpleKTO, then the tutorial's steps, then its command."""
    copy = tmp_path / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "samples", "__pycache__", "*.egg-info", ".*_cache")
    shutil.copytree(CHECKOUT, copy, ignore=ignored)
    page = (CHECKOUT / "docs" / "extending.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    imported, entry = re.findall(r"^```python\n((?:from|    \").*?)\n```", page, re.MULTILINE)
    table = copy / "trainers" / "__init__.py"
    with_it = table.read_text(encoding="utf-8")
    for line in (imported, entry):
        assert with_it.count(line) == 1, "the tutorial's line is not the shipped one"
        table.write_text(table.read_text(encoding="utf-8").replace(line + "\n", ""), encoding="utf-8")
    for name, text in files.items():
        assert (copy / name).read_text(encoding="utf-8") == text, f"the tutorial's {name} is not the shipped one"
        (copy / name).unlink()
    (command,) = [c for c in commands(CHECKOUT / "docs" / "extending.md") if "kto-simple" in c]
    place = Place(tmp_path)

    def run() -> tuple[int, str]:
        done = place.run(command.replace("train.py", str(copy / "train.py")))
        return done.returncode, done.stdout + done.stderr

    assert run()[0] == 2  # without the steps there is no such loss

    for name, text in files.items():
        (copy / name).write_text(text, encoding="utf-8")
    table.write_text(with_it, encoding="utf-8")
    code, said = run()
    assert code == 0, said
    assert "loss is 0.500000, as it must be" in said


@pytest.mark.long
def test_a_loss_of_ones_own_trains_and_a_wrong_sign_in_it_is_found(tmp_path: Path) -> None:
    """What the README shows, added to a copy of the checkout."""
    copy = tmp_path / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "samples", "__pycache__", "*.egg-info", ".*_cache")
    shutil.copytree(CHECKOUT, copy, ignore=ignored)
    page = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    assert sorted(Path(name).suffix for name in files) == [".py", ".yaml"]
    for name, text in files.items():
        (copy / name).write_text(text, encoding="utf-8")
        if name.endswith(".py"):
            source = copy / name
            lines = [line for line in text.splitlines() if line.strip()]
            assert len(lines) < 15
    table = copy / "trainers" / "__init__.py"
    named = table.read_text(encoding="utf-8").replace(
        "from trainers.wpo", "from trainers.squared_hinge import SquaredHingeTrainer\nfrom trainers.wpo"
    )
    named = named.replace(
        "TRAINERS: dict[str, type[BasicTrainer]] = {\n",
        'TRAINERS: dict[str, type[BasicTrainer]] = {\n    "SquaredHingeTrainer": SquaredHingeTrainer,\n',
    )
    table.write_text(named, encoding="utf-8")
    shown = [x for x in page.splitlines() if "squared-hinge" in x and x.startswith(("python ", "pytest "))]
    train, check = shown
    place = Place(tmp_path)
    done = place.run(train.replace("train.py", str(copy / "train.py")))
    assert done.returncode == 0, done.stderr

    def contract() -> tuple[int, str]:
        words = check.replace("pytest", "").split()
        found = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *words],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            check=False,
        )
        return found.returncode, found.stdout

    assert contract()[0] == 0, contract()[1]
    source.write_text(source.read_text().replace("(chosen - rejected)", "(rejected - chosen)"), encoding="utf-8")
    code, said = contract()
    assert code == 1
    assert "the loss does not fall as chosen answers become likelier" in said
