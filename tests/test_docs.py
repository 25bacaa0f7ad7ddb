"""The documentation's own commands, taken from its pages and run; recipes and the contract have their own files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import PAGES, commands, run_all
from tests.standins import Place, judged

OWN = [page for page in PAGES if page.parent.name != "recipes" and page.name != "running.md" and commands(page)]
LARGER = [page for page in OWN if any("datasets=[demo]" in command for command in commands(page))]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with judged(Place(tmp_path, warm=True)) as place:
        yield place


@pytest.mark.long
@pytest.mark.parametrize("page", OWN, ids=lambda page: page.name)
def test_commands_of_a_page_run_in_order(page: Path, place: Place) -> None:
    run_all(page, place)


@pytest.mark.soak
@pytest.mark.parametrize("page", LARGER, ids=lambda page: page.name)
def test_commands_on_the_demos_data_run_at_their_own_size(page: Path, place: Place) -> None:
    place.whole = True
    run_all(page, place)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_a_warm_process_says_and_returns_what_a_cold_one_does(tmp_path: Path) -> None:
    wrong = "python train.py loss=dop model=tiny"
    warm, cold = Place(tmp_path, warm=True).run(wrong), Place(tmp_path).run(wrong)
    assert (warm.returncode, warm.stdout, warm.stderr) == (cold.returncode, cold.stdout, cold.stderr)
    assert cold.returncode != 0
    assert "dop" in cold.stderr
