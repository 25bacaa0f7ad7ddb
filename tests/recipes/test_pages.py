"""The commands on the recipes' pages, run at toy size; deep-qwen's are run, and looked at, by its own test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import PAGES, run_all
from tests.standins import Place, judged

RECIPES = [page for page in PAGES if page.parent.name == "recipes" and page.name != "deep-qwen.md"]


@pytest.mark.long
@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.name)
def test_commands_of_a_recipe_run_in_order(page: Path, tmp_path: Path) -> None:
    with judged(Place(tmp_path, warm=True)) as place:
        run_all(page, place)
