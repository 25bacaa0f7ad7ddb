"""config/ itself: complete, commented, equal to the schema, and every combination composes."""

from __future__ import annotations

import ast
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import trainers
from prospect.config import schema
from prospect.config.compose import CONFIG, Composer, composer
from prospect.config.convert import flatten
from prospect.config.environment import written
from prospect.config.identity import default_name
from prospect.config.names import keys
from prospect.config.typed import checked

ROOT = Path(__file__).parents[2]
MEMBERS = {
    "loss": {"sft", "dpo", "kto", "kto-simple", "ppo", "reward"},
    "model": {
        *("tiny", "llama7b", "llama13b", "llama30b", "llama3-8b", "mistral7b", "pythia1-4b", "pythia2-8b"),
        *("pythia6-9b", "pythia12-0b", "qwen2.5-0.5b-instruct", "qwen3-8b", "gemma"),
    },
    "datasets": {"shp", "hh", "oasst", "demo", "files"},
    "logger": {"none", "wandb", "tensorboard"},
    "experiment": {"demo", "archangel", "archangel-sft", "orpo-mistral", "orpo-smol", "deep-qwen"},
    "sweep": {"beta", "archangel"},
    "chain": {"medical"},
}
FILES = sorted(CONFIG.rglob("*.yaml"))


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONFIG / group).glob("[!_]*.yaml"))


@pytest.fixture(scope="module")
def hydra() -> Any:
    with composer() as found:
        yield found


def test_every_group_has_its_members() -> None:
    for group, expected in MEMBERS.items():
        assert expected <= set(names(group))


def test_defaults_in_yaml_are_those_of_the_schema(hydra: Composer) -> None:
    in_files = flatten(hydra.compose([]).values | {"datasets": {}, "model": {}})
    expected = flatten(written(schema.Config(loss=None)) | {"model": {}})
    assert {k: v for k, v in in_files.items() if k != "loss"} == {k: v for k, v in expected.items() if k != "loss"}
    assert OmegaConf.to_container(OmegaConf.load(CONFIG / "model" / "_base.yaml")) == asdict(schema.ModelConfig())


@pytest.mark.parametrize("name", names("loss"))
def test_a_loss_file_has_every_key_of_its_trainer_with_the_same_default(name: str) -> None:
    given = dict(OmegaConf.load(CONFIG / "loss" / f"{name}.yaml"))
    trainer = trainers.TRAINERS[given["trainer"]]
    expected = {
        k: v for k, v in asdict(trainer.Config()).items() if k not in {f.name for f in fields(schema.LossConfig)}
    }
    assert given.pop("name") == name
    own = {k: v for k, v in given.items() if k not in ("trainer", "dataloader", "use_reference_model")}
    assert own == expected


@pytest.mark.parametrize("name", names("datasets"))
def test_a_data_set_file_nests_its_own_name(name: str) -> None:
    given: Any = OmegaConf.to_container(OmegaConf.load(CONFIG / "datasets" / f"{name}.yaml"))
    assert list(given) == [name]
    assert set(given[name]) <= {f.name for f in fields(schema.DatasetConfig)}


@pytest.mark.parametrize("loss", names("loss"))
@pytest.mark.parametrize("experiment", [*names("experiment"), "null"])
def test_every_experiment_composes_with_every_loss(experiment: str, loss: str, hydra: Composer) -> None:
    model = [] if experiment == "demo" else ["model=llama7b"]
    words = hydra.words([f"experiment={experiment}", f"loss={loss}", *model])
    config = checked(hydra.compose(words).values, (), trainers.losses)
    if (experiment, loss) == ("orpo-mistral", "reward"):  # an adapter, and a loss that trains whole models
        config.peft = schema.PeftConfig()
    assert isinstance(trainers.make_trainer(config), trainers.TRAINERS[config.loss.trainer])
    if experiment == "archangel":
        assert (config.optimizer, config.lr, config.warmup_steps, config.model.batch_size) == ("RMSprop", 5e-7, 150, 32)
        assert (config.model.max_length, config.model.max_prompt_length) == (2048, 1024)
    if experiment == "demo":
        assert (config.model.name, list(config.datasets)) == ("tiny", ["demo"])
        assert (config.n_examples, config.lr) in ((1600, 2e-4), (6400, 2.5e-4), (16000, 2e-3))


@pytest.mark.parametrize("model", names("model"))
def test_every_model_composes(model: str, hydra: Composer) -> None:
    config = checked(hydra.compose(["loss=dpo", f"model={model}"]).values, (), trainers.losses)
    assert config.model.name == model
    assert (config.model.name_or_path is None) == (model == "tiny")


@pytest.mark.parametrize("logger", names("logger"))
def test_loggers(logger: str, hydra: Composer) -> None:
    config = checked(hydra.compose(["loss=dpo", "model=tiny", f"logger={logger}"]).values, (), trainers.losses)
    assert (config.wandb.enabled, config.tensorboard.enabled) == (logger == "wandb", logger == "tensorboard")


def test_several_loggers(hydra: Composer) -> None:
    values = hydra.compose(["loss=dpo", "model=tiny", "logger=[wandb,tensorboard]"]).values
    assert (values["wandb"]["enabled"], values["tensorboard"]["enabled"]) == (True, True)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIG)))
def test_files_are_short_and_say_what_they_are(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    if file.parent.name != "by_loss":
        assert any(line.startswith("# ") and "@package" not in line for line in lines[:2])
    if file.parent.name in ("loss", "model") and not file.stem.startswith("_"):
        assert len(lines) <= 18


@pytest.mark.parametrize(
    "file", ["config.yaml", "model/_base.yaml", "peft/none.yaml", *(f"loss/{name}.yaml" for name in names("loss"))]
)
def test_every_key_has_a_comment(file: str) -> None:
    bare = [
        line
        for line in (CONFIG / file).read_text(encoding="utf-8").splitlines()
        if line.strip() and "#" not in line and not line.rstrip().endswith(":")
    ]
    assert [x for x in bare if not x.startswith(("name:", "human_", "assistant_", "  project:", "  - _self_"))] == []


def test_every_key_is_read_by_some_code() -> None:
    """A key that nothing reads would be accepted and do nothing."""
    read: set[str] = set()
    folders = (ROOT / "prospect", ROOT / "trainers", ROOT / "dataloaders")
    for file in (
        f for folder in folders for f in folder.rglob("*.py") if "config" not in f.relative_to(folder).parts[:1]
    ):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {key.rsplit(".", 1)[-1] for key in keys() if key != "loss"} - read == set()


@pytest.mark.parametrize("peft", names("peft"))
def test_every_kind_of_adapter_composes_and_names_its_run(peft: str, hydra: Composer) -> None:
    words = hydra.words(["loss=dpo", "model=tiny", f"peft={peft}"])
    made = checked(hydra.compose(words).values, (), trainers.losses).peft
    assert (made.r is None, made.use_dora, made.quantization == "nf4") == (
        peft == "none",
        peft == "dora",
        peft == "qlora",
    )
    assert default_name(*hydra.name_parts(words)) == ("dpo_tiny" if peft == "none" else f"dpo_tiny_peft-{peft}")
