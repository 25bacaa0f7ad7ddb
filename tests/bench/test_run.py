"""TRL as an oracle: on the same rows both frameworks compute the same losses and gradients, step after step.

At the first step DPO's loss is log 2 and KTO's 0.5 whatever a framework does, because policy and reference are equal;
the gradient's norm and the later steps' losses, after equal updates, are what two wrong computations would not share.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench import prepare
from bench.compare import PEERS

ROOT = Path(__file__).resolve().parents[2]
WORDS = "alpha beta gamma delta small large red green runs walks under over the a river stone".split()
STEPS = 3

pytest.importorskip("trl")


def text(rng: random.Random, least: int, most: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(least, most)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and rows of very unequal lengths, some of which are cut at max_length."""
    rng, out = random.Random(0), tmp_path_factory.mktemp("bench")
    pairs = [
        {"prompt": text(rng, 3, 20), "chosen": text(rng, 2, 60), "rejected": text(rng, 2, 60)} for _ in range(4 * STEPS)
    ]
    labelled = [
        {"prompt": text(rng, 3, 20), "completion": text(rng, 2, 30), "label": rng.random() < 0.5}
        for _ in range(4 * STEPS)
    ]
    for name, rows in (("dpo", pairs), ("kto", labelled)):
        source = out / f"{name}_source.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = prepare.rows(source)
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    prepare.make_model("tiny", prepare.rows(out / "dpo_source.jsonl"), out / "tiny")
    return out


@pytest.fixture(scope="module", params=["sft", "dpo", "kto"])
def both(request: pytest.FixtureRequest, folder: Path) -> tuple[dict, dict]:
    """Prospect's line and TRL's of one task."""
    task = request.param
    data = folder / ("kto.jsonl" if task == "kto" else "dpo.jsonl")
    options = ["--task", task, "--model", folder / "tiny", "--data", data, "--max-length", "96", "--mb", "4"]
    options += ["--steps", str(STEPS - 1), "--warm", "1"]
    legs = (["--fw", "prospect", "--ckpt", "0", "--pre", "1"], [x for item in PEERS["defaults"].items() for x in item])

    def run(leg: list[str]) -> dict:
        command = [sys.executable, ROOT / "bench" / "run.py", *leg, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("\n") == 1
        return json.loads(done.stdout)

    with ThreadPoolExecutor(2) as pool:
        own, peer = pool.map(run, legs)
    return own, peer


def test_same_work(both: tuple[dict, dict]) -> None:
    own, peer = both
    assert own["tok"] == peer["tok"] > 0
    assert own["ex"] == peer["ex"] == 4 * (STEPS - 1)
    assert own["pad_frac"] == 0 < peer["pad_frac"]


def test_same_first_gradient(both: tuple[dict, dict]) -> None:
    own, peer = both
    assert own["loss"] == pytest.approx(peer["loss"], abs=1e-5)
    assert own["grad_norm"] == pytest.approx(peer["grad_norm"], rel=1e-4)
    if peer["logps"] is not None:
        assert own["logps"] == pytest.approx(peer["logps"], rel=1e-5)


def test_same_losses_after_updates(both: tuple[dict, dict]) -> None:
    own, peer = both
    assert len(set(own["losses"])) == STEPS
    assert own["losses"] == pytest.approx(peer["losses"], abs=2e-5)


def test_line_has_the_protocols_keys(both: tuple[dict, dict]) -> None:
    wanted = "ex_s tok_s tok ex pad_frac wall cpu foreign rss_start peak med_step init_s ref_s loss".split()
    for line in both:
        assert set(wanted) <= set(line)
        assert line["peak"] >= line["rss_start"] > 0
        assert line["wall"] > 0
