"""Twenty steps of every loss on two tiny models: the numbers must not drift.

``tests/golden/<maker>-<capability>-torch-<torch>.json`` holds each step's losses, for processors that compute alike
(AVX2 and AVX-512 differ in the last bits, so do MKL's kernels for Intel and AMD, and twenty steps multiply them) and
this version of torch; elsewhere any of the files is compared with a wider tolerance: 4e-3 was seen between two makers.
``python -m tests.trainers.test_golden`` writes this machine's file.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from tests import tiny
from trainers.basic import BasicTrainer, Engine

FOLDER = Path(__file__).parents[1] / "golden"
CPUS = Path("/proc/cpuinfo")
STEPS = 20
SHAPES = {
    "llama": tiny.SHAPE,
    "gpt_neox": {
        "model_type": "gpt_neox",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 320,
        "max_position_embeddings": 512,
    },
}


def losses_of_steps(folder: Path, loss: str, shape: str) -> list[float]:
    """The loss of each of the first steps, with AdamW, from fixed weights and data, on one thread."""
    own = folder / shape  # a cache of its own: reference values are stored by the run's name here
    own.mkdir(exist_ok=True)
    config = tiny.config(own, loss, count=48, batch_size=4, n_epochs=4, architecture=SHAPES[shape], seed=3)
    trainer, engine = tiny.trainer_and_engine(config)
    return trained(engine, trainer)


def trained(engine: Engine, trainer: BasicTrainer) -> list[float]:
    parameters = engine.policy.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    found = []
    for number in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        found.append(trainer.step(engine.data.step(number), number, engine, train=True).means()["loss"])
        optimizer.step()
    return found


def here() -> Path:
    """This machine's file."""
    capability = torch.backends.cpu.get_cpu_capability().lower().replace(" ", "")
    made_by = re.search(r"vendor_id\s*: *(\w+)", CPUS.read_text()) if CPUS.is_file() else None
    maker = made_by[1].lower() if made_by else "other"
    return FOLDER / f"{maker}-{capability}-torch-{torch.__version__.split('+')[0]}.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("golden")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", sorted(tiny.SHIPPED))
def test_twenty_steps(folder: Path, loss: str, shape: str) -> None:
    file = here() if here().is_file() else sorted(FOLDER.glob("*.json"))[0]
    golden = json.loads(file.read_text())
    name = f"{loss}/{shape}"
    found = losses_of_steps(folder, loss, shape)
    tolerance = 1e-5 if file == here() else 1e-2
    assert found == pytest.approx(golden[name], rel=tolerance, abs=tolerance / 10)


def test_another_seed_would_be_seen(folder: Path) -> None:
    golden = json.loads(sorted(FOLDER.glob("*.json"))[0].read_text())["dpo/llama"]
    config = tiny.config(folder, "dpo", count=48, batch_size=4, n_epochs=4, architecture=SHAPES["llama"], seed=4)
    trainer, engine = tiny.trainer_and_engine(config)
    assert trained(engine, trainer) != pytest.approx(golden, rel=1e-2, abs=1e-3)


if __name__ == "__main__":
    import tempfile

    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        values = {
            f"{loss}/{shape}": [round(x, 9) for x in losses_of_steps(Path(place), loss, shape)]
            for loss in tiny.LOSSES
            for shape in SHAPES
        }
    here().write_text(json.dumps(values, indent=0, sort_keys=True) + "\n")
    print(f"written: {here()}")
