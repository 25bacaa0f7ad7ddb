"""A loss of one's own, added as the pages say: to a copy of the checkout, which must then train it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.pages import commands
from tests.standins import CHECKOUT, Place


def copied(folder: Path) -> Path:
    """A copy of the checkout below ``folder``."""
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "samples", "__pycache__", "*.egg-info", ".*_cache")
    return shutil.copytree(CHECKOUT, folder / "checkout", ignore=ignored)


@pytest.mark.long
def test_the_tutorial_builds_a_loss_that_trains(tmp_path: Path) -> None:
    """A checkout without SimpleKTO, then the tutorial's steps, then its command."""
    copy = copied(tmp_path)
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
    place = Place(copy, warm=True, checkout=copy)

    def run() -> tuple[int, str]:
        done = place.run(command)
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
    copy = copied(tmp_path)
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
    place = Place(copy, warm=True, checkout=copy)
    done = place.run(train)
    assert done.returncode == 0, done.stderr

    def contract() -> tuple[int, str]:
        done = place.run(f"{check} -q -p no:cacheprovider -p no:xdist")
        return done.returncode, done.stdout

    code, said = contract()
    assert code == 0, said
    source.write_text(source.read_text().replace("(chosen - rejected)", "(rejected - chosen)"), encoding="utf-8")
    code, said = contract()
    assert code == 1
    assert "the loss does not fall as chosen answers become likelier" in said
