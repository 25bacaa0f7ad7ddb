"""An adapter meets the model that it was trained on, wherever that lies now, or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prospect.checkpoint.commit import committed
from prospect.checkpoint.lineage import Base, base_of, fingerprint, located
from prospect.checkpoint.origin import Origin
from prospect.config.schema import Quantization
from prospect.errors import UserError


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    with committed(folder / "LATEST") as building:
        (building / "config.json").write_text("{}")
        (building / "model.safetensors").write_bytes(b"weights")
    adapter(folder / "sft", Base.of_folder(folder / "LATEST", folder))
    return folder


def adapter(folder: Path, base: Base) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base.name}))
    base.write(folder)
    return folder


def test_what_is_written_is_read(cache: Path) -> None:
    base = Base("org/m", "abc", quantization=Quantization.nf4, dtype="bfloat16")
    base.write(cache / "sft")
    assert base_of(cache / "sft") == base


def test_a_base_is_found_where_it_was_and_where_it_has_gone_with_its_adapter(cache: Path) -> None:
    base = base_of(cache / "sft")
    wanted = Origin(cache / "LATEST", is_state_dict=False)
    assert located(base, cache / "sft", cache) == wanted
    moved = cache.rename(cache.with_name("elsewhere"))
    assert located(base, moved / "sft", moved) == Origin(moved / "LATEST", is_state_dict=False)
    with pytest.raises(UserError, match=r"sft is an adapter on .*LATEST, which is not there"):
        located(base, moved / "sft", cache)


def test_a_base_that_has_changed_is_refused(cache: Path) -> None:
    base = base_of(cache / "sft")
    with committed(cache / "LATEST") as building:
        (building / "config.json").write_text("{}")
        (building / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"sft is an adapter on .*LATEST, which has changed since"):
        located(base, cache / "sft", cache)


def test_weights_without_a_manifest_are_hashed_themselves(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"a")
    before = fingerprint(tmp_path)
    (tmp_path / "README.md").touch()
    assert fingerprint(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"b")
    assert fingerprint(tmp_path) != before


def test_adapters_on_adapters_and_on_the_hub(cache: Path) -> None:
    below = adapter(cache / "dpo", Base.of_folder(cache / "sft", cache))
    assert located(base_of(below), below, cache) == Origin(cache / "sft", is_state_dict=False, is_adapter=True)
    assert located(base_of(adapter(cache / "hub", Base("org/model"))), cache / "hub", cache) is None


def test_adapters_from_elsewhere_name_their_base_in_pefts_file(cache: Path) -> None:
    (cache / "sft" / "base.json").unlink()
    assert base_of(cache / "sft") == Base(str(cache / "LATEST"))
    (cache / "sft" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="does not say which model its adapter belongs to"):
        base_of(cache / "sft")
    (cache / "sft" / "adapter_config.json").write_text('{"base_model_name_or_path": null}')
    with pytest.raises(UserError, match="is an adapter on an unnamed model, which is not there"):
        located(base_of(cache / "sft"), cache / "sft", cache)
