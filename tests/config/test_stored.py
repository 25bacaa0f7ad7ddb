from __future__ import annotations

from pathlib import Path

import pytest

import trainers
from prospect.config import Config, eval_command, first_difference, load_run_config, run_command, save_config
from prospect.errors import UserError


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Config]:
    """A run folder with its configuration."""
    found: list[Config] = []
    line = ["loss=kto", "model=tiny", "datasets=[demo]", "lr=1e-5", f"cache_dir={tmp_path}/models"]

    def job(config: Config) -> int:
        found.append(config)
        return 0

    assert run_command(line, trainers.losses, job) == 0
    folder = tmp_path / "models" / str(found[0].exp_name)
    folder.mkdir(parents=True)
    save_config(found[0], folder / "config.yaml")
    return folder, found[0]


def test_what_is_saved_comes_back(run: tuple[Path, Config]) -> None:
    folder, config = run
    config.local_run_dir = str(folder)
    assert load_run_config(str(folder), [], trainers.losses) == config
    assert load_run_config(str(folder / "config.yaml"), [], trainers.losses) == config
    assert first_difference(load_run_config(str(folder), [], trainers.losses), config) is None


def test_a_run_is_used_where_it_lies_now(run: tuple[Path, Config], tmp_path: Path) -> None:
    folder, config = run
    moved = tmp_path / "elsewhere" / folder.name
    moved.parent.mkdir()
    folder.rename(moved)
    loaded = load_run_config(str(moved), ["++exp_name=shown"], trainers.losses)
    assert (loaded.exp_name, loaded.cache_dir, loaded.local_run_dir) == ("shown", str(moved.parent), str(moved))
    renamed = moved.rename(moved.parent / "mine")
    loaded = load_run_config(str(renamed), [], trainers.losses)
    assert (loaded.exp_name, loaded.local_run_dir) == (config.exp_name, str(renamed))


def test_overrides(run: tuple[Path, Config]) -> None:
    line = "++mode=sample ++n_samples=512 ++model.eval_batch_size=32 samples_dir=samples/ ++saved_policy=null"
    config = load_run_config(str(run[0]), line.split(), trainers.losses)
    assert (config.mode, config.n_samples, config.model.eval_batch_size) == ("sample", 512, 32)
    assert (config.samples_dir, config.saved_policy) == ("samples", None)
    assert load_run_config(str(run[0]), ["++n_samples=null"], trainers.losses).n_samples is None


def test_a_data_set_that_the_run_did_not_see(run: tuple[Path, Config]) -> None:
    config = load_run_config(str(run[0]), ["++datasets.alpacaeval.path=a.json"], trainers.losses)
    assert (config.datasets["alpacaeval"].source, config.datasets["alpacaeval"].path) == ("alpacaeval", "a.json")


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("++n_sample=3", "n_sample: unknown key (did you mean `n_samples`?)"),
        ("++n_samples=some", "n_samples: expected a whole number, not 'some'"),
        ("++loss=dpo", "++loss=dpo: a run keeps its loss; single keys can be set: ++loss.<key>=<value>"),
        ("++seed=1,2", "++seed=1,2: one value at a time here"),
        ("++top_p=0", "top_p: must be above 0 and at most 1, not 0"),
    ],
)
def test_wrong_overrides(run: tuple[Path, Config], word: str, line: str) -> None:
    with pytest.raises(UserError) as error:
        load_run_config(str(run[0]), [word], trainers.losses)
    assert str(error.value) == line


def test_files_that_are_none(run: tuple[Path, Config], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"/models/kto_tiny_dataset is not there \(did you mean `kto_tiny_datasets-demo_lr"
    ):
        load_run_config(str(run[0].parent / "kto_tiny_dataset"), [], trainers.losses)
    for text in ("- a\n", "a: [", "a: !!python/object/apply:os.getcwd []\n"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(UserError, match="not a configuration"):
            load_run_config(str(tmp_path), [], trainers.losses)


def test_nothing_in_a_stored_file_is_resolved(run: tuple[Path, Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "sk-1")
    file = run[0] / "config.yaml"
    file.write_text(file.read_text().replace("samples_dir: samples", "samples_dir: ${oc.env:SECRET}"))
    assert load_run_config(str(run[0]), [], trainers.losses).samples_dir == "${oc.env:SECRET}"


def test_eval_command(run: tuple[Path, Config], capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Config] = []

    def job(config: Config) -> int:
        seen.append(config)
        return 0

    assert eval_command([f"--config-path={run[0]}", "++mode=eval"], trainers.losses, job) == 0
    assert eval_command(["++mode=sample", "--config-path", f"{run[0]}/config.yaml"], trainers.losses, job) == 0
    assert [config.mode for config in seen] == ["eval", "sample"]
    assert eval_command([f"--config-path={run[0]}"], trainers.losses, job) == 2
    assert eval_command(["++mode=eval"], trainers.losses, job) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: mode: say what to do with the run: ++mode=sample, eval, alpacaeval, mtbench, probe, merge, push",
        "error: --config-path: give the run folder or its config.yaml",
    ]
