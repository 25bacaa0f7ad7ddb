from __future__ import annotations

from dataclasses import replace

import pytest

from prospect.config import Config, first_difference
from prospect.config.compose import composer
from prospect.config.identity import NEUTRAL
from prospect.config.identity import default_name as name_of
from prospect.config.names import keys
from prospect.config.schema import DatasetConfig
from trainers.dpo import DPOTrainer
from trainers.kto import KTOTrainer


def default_name(line: str) -> str:
    with composer() as hydra:
        return name_of(*hydra.name_parts(hydra.words(line.split())))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("loss=kto model=llama7b", "kto_llama7b"),
        ("loss=kto model=llama7b datasets=[shp,hh,oasst] lr=5e-6 loss.beta=0.1", "kto_llama7b"),
        ("loss=dpo model=llama7b loss.beta=0.05", "dpo_llama7b_loss.beta-0.05"),
        ("seed=2 model=tiny loss=dpo loss.beta=0.05", "dpo_tiny_loss.beta-0.05_seed-2"),
        ("loss=dpo model=tiny eval_every=9 loss.beta=0.05", "dpo_tiny_loss.beta-0.05_eval_every-9"),
        ("loss=dpo model=tiny datasets=[hh,demo]", "dpo_tiny_datasets-demo-hh"),
        ("loss=sft experiment=demo", "sft_tiny_experiment-demo"),
        ("loss=sft experiment=demo datasets=[demo] lr=1e-3", "sft_tiny_experiment-demo_lr-0.001"),
        ("loss=dpo model=tiny cache_dir=/data logger=wandb model.eval_batch_size=2 n_samples=3 debug=true", "dpo_tiny"),
    ],
)
def test_default_names(line: str, name: str) -> None:
    assert default_name(line) == name


def test_the_order_of_words_changes_nothing() -> None:
    assert default_name("loss=dpo model=tiny seed=2 lr=1") == default_name("lr=1 seed=2 model=tiny loss=dpo")


def test_what_is_no_file_name_is_replaced_and_stays_distinct() -> None:
    one = default_name("loss=dpo model=tiny model.load_from=/data/a/b")
    two = default_name("loss=dpo model=tiny model.load_from=/data/a-b")
    assert one != two
    assert one.startswith("dpo_tiny_model.load_from--data-a-b-")
    long = default_name(f"loss=dpo model=tiny model.load_from={'x' * 200}")
    assert len(long) == 100


def config(**changes: object) -> Config:
    fresh = Config(loss=DPOTrainer.Config(), datasets={"hh": DatasetConfig(source="hh")})
    return replace(fresh, **changes)  # type: ignore[arg-type]  # the fields of Config


def test_first_difference() -> None:
    assert first_difference(config(), config()) is None
    assert first_difference(config(), config(lr=1e-3, seed=3)) == "seed is 1 there and 3 now"
    kto = KTOTrainer.Config(beta=0.1)
    assert first_difference(config(loss=kto), config()) == "loss.desirable_weight is 1.0 there and absent now"
    other = {"hh": DatasetConfig(source="hh", weight=2.0)}
    assert first_difference(config(), config(datasets=other)) == "datasets.hh.weight is 1.0 there and 2.0 now"


def test_keys_that_change_no_result_may_differ() -> None:
    assert first_difference(config(), config(exp_name="x", cache_dir="y", n_samples=3, debug=True)) is None
    ours = {key.removeprefix("loss.") if key.startswith("loss.") else key for key in NEUTRAL}
    known = {*keys(), *(key.split(".")[0] for key in keys()), "name", "dataloader", "use_reference_model"}
    assert ours <= known
