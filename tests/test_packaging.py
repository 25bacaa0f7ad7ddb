"""pyproject.toml and environment.yml say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "environment.yml"))


def test_the_conda_environment_installs_this_project() -> None:
    assert ENVIRONMENT["name"] == PROJECT["name"]
    (pip,) = (item["pip"] for item in ENVIRONMENT["dependencies"] if isinstance(item, dict))
    (own,) = (item for item in pip if item.startswith("-e ."))
    extras = re.findall(r"[\w-]+", own.partition("[")[2])
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert extras


def test_its_python_is_one_that_the_project_supports() -> None:
    (python,) = (x for x in ENVIRONMENT["dependencies"] if isinstance(x, str) and x.startswith("python="))
    assert f"{python.removeprefix('python=')}.0" in SpecifierSet(PROJECT["requires-python"])


def test_no_package_is_pinned_in_two_ways() -> None:
    extras = PROJECT["optional-dependencies"].values()
    everything = [Requirement(x) for group in (PROJECT["dependencies"], *extras) for x in group]
    everything += [
        Requirement(x)
        for item in ENVIRONMENT["dependencies"]
        for x in (item["pip"] if isinstance(item, dict) else [])
        if not x.startswith("-")
    ]
    pins: dict[str, set[str]] = {}
    for requirement in everything:
        if requirement.name != "setuptools":  # the build's and tensor-parallel's are different things
            pins.setdefault(requirement.name.lower(), set()).add(str(requirement.specifier))
    assert {name: found for name, found in pins.items() if len(found) > 1} == {}


def test_the_licence_is_the_one_that_is_named() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert "license: Apache-2.0" in (ROOT / "CITATION.cff").read_text()
