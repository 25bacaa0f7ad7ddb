"""The pages of the documentation, and the code and commands on them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.standins import CHECKOUT, Place

PAGES = sorted([CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md")])
# Installation; the demo, which has its own test; measurements, which tests/bench runs small, and its counters.
ELSEWHERE = ("make ", "conda ", "export ", "python bench/", "python -m tests.bench.", "FEW=")


def blocks(page: Path, language: str) -> list[str]:
    """Fenced code in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path, elsewhere: tuple[str, ...] = ELSEWHERE) -> list[str]:
    """What a reader would type, but for what begins with one of ``elsewhere``."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(elsewhere)]


def run_all(page: Path, place: Place) -> None:
    """Run a page's commands in order; each must succeed."""
    for command in commands(page):
        done = place.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
