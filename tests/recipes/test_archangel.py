"""The Archangel suite at toy size: eleven runs by one command, named as published."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from tests.standins import Place

SINGLE = ("sft", "csft", "dpo", "kto", "ppo", "slic")
NAMES = {f"archangel_{loss}_tiny" for loss in SINGLE} | {f"archangel_sft-{loss}_tiny" for loss in SINGLE[1:]}
SMALL = "n_examples=8 n_eval_examples=4 model.batch_size=4 model.max_length=128 model.max_prompt_length=64"


@pytest.mark.long
def test_the_whole_suite_is_one_multirun(tmp_path: Path, shared_data: Path) -> None:
    place = Place(tmp_path, warm=True)
    with gzip.open(shared_data / "hh_harmless_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        (tmp_path / "harmless.jsonl").write_text("".join(line for line, _ in zip(lines, range(60), strict=False)))
    shutil.copy(shared_data / "oasst1_messages_50trees.jsonl", tmp_path / "trees.jsonl")
    data = "datasets.hh_harmless.path=harmless.jsonl datasets.oasst.path=trees.jsonl"
    done = place.run(f"python train.py sweep=archangel model=tiny datasets=[hh_harmless,oasst] {data} {SMALL}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("11 runs: archangel_sft_tiny, archangel_csft_tiny, ")
    runs = {run.parent.parent.name: run.parent for run in (tmp_path / "runs").glob("*/LATEST/config.json")}
    assert set(runs) == NAMES
    for name, policy in runs.items():
        manifest = json.loads((policy.parent / "manifest.json").read_text())
        start = "runs/archangel_sft_tiny/LATEST" if "sft-" in name else "random weights"
        assert (manifest["parents"][0]["path"], "finished_at" in manifest) == (start, True), name
        assert (policy / "README.md").is_file()
