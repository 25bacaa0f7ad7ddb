"""What `model.load_from` may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from prospect.checkpoint.origin import Origin, resolve
from prospect.errors import UserError


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    for folder in ("my_sft/LATEST", "plain", "old/LATEST", "adapter", "empty"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "my_sft/config.yaml").touch()
    for folder in ("my_sft/LATEST", "plain"):
        (tmp_path / folder / "config.json").touch()
    (tmp_path / "old/LATEST/policy.pt").touch()
    (tmp_path / "adapter/adapter_config.json").touch()
    return tmp_path


@pytest.mark.parametrize("name", ["my_sft", "my_sft/LATEST", "my_sft/LATEST/policy.pt", "my_sft/policy.pt"])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_run_by_all_its_names(cache: Path, name: str, absolute: bool) -> None:
    given = str(cache / name) if absolute else name
    assert resolve(given, cache) == Origin(cache / "my_sft" / "LATEST", is_state_dict=False)


def test_an_adapter(cache: Path) -> None:
    assert resolve("adapter", cache) == Origin(cache / "adapter", is_state_dict=False, is_adapter=True)
    (cache / "adapter/config.json").touch()  # some come with their base model's
    assert resolve("adapter", cache).is_adapter
    (cache / "adapter/model.safetensors").touch()
    assert not resolve("adapter", cache).is_adapter


def test_a_plain_model_folder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("plain", cache).path == cache / "plain"
    monkeypatch.chdir(cache)
    assert resolve("plain", cache / "elsewhere").path == Path("plain")


@pytest.mark.parametrize("name", ["old/LATEST/policy.pt", "old", "old/LATEST"])
def test_a_real_old_policy_file(cache: Path, name: str) -> None:
    assert resolve(name, cache) == Origin(cache / "old" / "LATEST" / "policy.pt", is_state_dict=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_sfd/LATEST", r"model.load_from: there is no .*my_sfd/LATEST \(did you mean `my_sft`\?\)"),
        ("empty", r"holds no model \(no config.json in it\)"),
        ("/nowhere/at/all", "model.load_from: there is no /nowhere/at/all$"),
    ],
)
def test_refusals(cache: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(name, cache)
