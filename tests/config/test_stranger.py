"""A run's folder from elsewhere: its config.yaml gets no code run, nothing written and nothing read outside of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import trainers
from prospect.config import Config, eval_command, load_run_config, run_command, save_config, stranger
from prospect.errors import UserError
from tests.planted import plant

Strange = Callable[..., Path]


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Strange:
    """Makes a run's folder whose config.yaml says what the arguments say, by dotted key."""
    monkeypatch.chdir(tmp_path)
    found: list[Config] = []

    def job(config: Config) -> int:
        found.append(config)
        return 0

    assert run_command(["loss=ppo", "model=tiny", "datasets=[demo]", "cache_dir=models"], trainers.losses, job) == 0
    folder = tmp_path / "models" / str(found[0].exp_name)
    folder.mkdir(parents=True)

    def make(**changes: Any) -> Path:
        save_config(found[0], folder / "config.yaml")
        values = yaml.safe_load((folder / "config.yaml").read_text())
        for key, value in changes.items():
            *parents, last = key.split("__")
            node = values
            for parent in parents:
                node = node[parent]
            node[last] = value
        if changes:
            (folder / "config.yaml").write_text(yaml.safe_dump(values))
        return folder

    return make


def followed(folder: Path, *words: str) -> Config:
    return load_run_config(str(folder), [*words, "++mode=sample"], trainers.losses, to_follow=True)


def test_code_is_trusted_on_the_command_line_alone(strange: Strange, tmp_path: Path) -> None:
    folder = strange(model__trust_remote_code=True)
    assert not followed(folder).model.trust_remote_code
    assert not load_run_config(str(folder), [], trainers.losses).model.trust_remote_code
    assert followed(folder, "++model.trust_remote_code=true").model.trust_remote_code


def test_a_file_of_a_model_does_not_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "other.yaml").write_text("defaults: [_base]\nname_or_path: org/x\ntrust_remote_code: true\n")
    line = ["loss=sft", "model=other", "datasets=[demo]", f"hydra.searchpath=[file://{tmp_path}]"]
    assert run_command(line, trainers.losses, lambda config: 0) == 2
    said = "error: model.trust_remote_code: this is said on the command line alone: ++model.trust_remote_code=true\n"
    assert capsys.readouterr().err == said
    assert (
        run_command([*line, "exp_name=run", "++model.trust_remote_code=true"], trainers.losses, lambda config: 0) == 0
    )


def test_what_is_done_is_said_on_the_command_line(strange: Strange, capsys: pytest.CaptureFixture[str]) -> None:
    """A stored mode=push would send the folder, and the user's name, to whoever wrote it."""
    folder = strange(mode="push", repo="evil/repo", private=False, out="/tmp/elsewhere")
    assert eval_command([f"--config-path={folder}"], trainers.losses, lambda config: 0) == 2
    assert "mode: say what to do with the run" in capsys.readouterr().err
    config = followed(folder)
    assert (config.repo, config.private, config.out) == (None, True, None)
    assert followed(folder, "++repo=me/mine").repo == "me/mine"


def test_nothing_is_written_elsewhere(strange: Strange, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = str(tmp_path / "elsewhere")
    folder = strange(samples_dir=elsewhere, cache_dir=elsewhere, local_run_dir=elsewhere, exp_name="other")
    config = followed(folder)
    assert (config.samples_dir, config.cache_dir, config.local_run_dir) == ("samples", str(folder.parent), str(folder))
    assert (
        capsys.readouterr().err
        == f"samples_dir: {elsewhere} of {folder}/config.yaml is not followed; answers go to samples/\n"
    )
    assert followed(folder, f"++samples_dir={elsewhere}").samples_dir == elsewhere
    assert followed(strange(samples_dir=str(folder / "answers"))).samples_dir == str(folder / "answers")
    with pytest.raises(UserError, match=r"exp_name: '../../x' is not a name"):
        followed(strange(exp_name="../../x"))


def test_a_cache_that_leads_elsewhere_is_refused(strange: Strange, tmp_path: Path) -> None:
    folder = strange(lr=1e-3)
    (tmp_path / "elsewhere").mkdir()
    (folder.parent / ".cache").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"cache_dir: .*/\.cache is a link to .*/elsewhere; name the folder"):
        followed(folder)
    followed(folder, f"++cache_dir={tmp_path}")


PLACES = (
    "model.name_or_path",
    "model.tokenizer_name_or_path",
    "model.load_from",
    "loss.reward_model",
    "saved_policy",
    "chat_template",
    "datasets.demo.path",
    "datasets.demo.test_path",
)


@pytest.mark.parametrize("key", PLACES)
@pytest.mark.parametrize("spelling", ["absolute", "relative", "with dots", "a link", "home"])
def test_nothing_is_read_elsewhere(
    strange: Strange, tmp_path: Path, key: str, spelling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("[]")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = strange(lr=1e-3)
    (folder / "link.json").symlink_to(secret)
    spelled = {
        "absolute": str(secret),
        "relative": "secret.json",
        "with dots": f"{folder}/../../secret.json",
        "a link": f"{folder}/link.json",
        "home": "~/secret.json",
    }[spelling]
    folder = strange(**{key.replace(".", "__"): spelled})
    if (key, spelling) == ("chat_template", "home"):
        return  # this key knows no ~
    with pytest.raises(UserError) as error:
        followed(folder)
    typed = f"++{key}={spelled.replace('~', str(tmp_path))}"
    assert str(error.value).startswith(f"{key}: {spelled} stands in {folder}/config.yaml and leads out of {folder} and")
    assert str(error.value).endswith(f"; if it is meant: {typed}")
    followed(folder, typed)


@pytest.mark.parametrize("pattern", ["/**/*.json", "{folder}/*/../../../*.json", "secret*", "~/s*.json"])
def test_nor_by_a_pattern(strange: Strange, tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.json").write_text("[]")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = strange(lr=1e-3)
    (folder / "LATEST").mkdir()
    with pytest.raises(UserError, match=r"datasets.demo.path: .* leads out of"):
        followed(strange(datasets__demo__path=["in.json", pattern.format(folder=folder)]))


def test_places_inside_and_names_on_the_hub_are_followed(strange: Strange, tmp_path: Path) -> None:
    folder = strange(lr=1e-3)
    (folder.parent / "sft" / "LATEST").mkdir(parents=True)
    (folder / "pairs.jsonl").write_text("{}\n")
    known = {"model__load_from": "sft/LATEST", "model__name_or_path": "org/base", "saved_policy": "LATEST"}
    own = {"datasets__demo__path": f"{folder}/p*.jsonl", "datasets__demo__test_path": "org/data"}
    config = followed(strange(**known, **own, loss__reward_model="gone"))
    assert (config.model.load_from, config.model.name_or_path, config.datasets["demo"].test_path) == (
        "sft/LATEST",
        "org/base",
        "org/data",
    )


def test_what_this_user_has_written_is_followed(strange: Strange, tmp_path: Path) -> None:
    """Own data lie where the user has said, and need not be named again; a changed file is anybody's."""
    pairs = tmp_path / "data" / "pairs.json"
    pairs.parent.mkdir()
    pairs.write_text("[]")
    folder = strange()
    config = load_run_config(str(folder), [f"++datasets.demo.path={pairs}"], trainers.losses)
    save_config(config, folder / "config.yaml")
    assert followed(folder).datasets["demo"].path == str(pairs)
    moved = folder.rename(folder.parent / "moved")
    assert followed(moved).datasets["demo"].path == str(pairs)
    file = moved / "config.yaml"
    file.write_text(file.read_text() + "# edited\n")
    with pytest.raises(UserError, match=r"datasets.demo.path: .* leads out of"):
        followed(moved)


def test_a_template_file_is_read_as_the_run_has_exported_it(strange: Strange, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("edited since")
    folder = strange(chat_template=str(tmp_path / "own.jinja"))
    exported = folder / "LATEST" / "chat_template.jinja"
    exported.parent.mkdir()
    exported.write_text("as it was")
    assert followed(folder).chat_template == str(exported)
    assert followed(folder, "++chat_template=archangel").chat_template == "archangel"
    assert followed(strange(chat_template=str(tmp_path / "gone.jinja"))).chat_template == str(exported)


def test_planted_trust_in_every_file_is_seen(strange: Strange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, stranger.is_own, "_note(text).is_file()", "True")
    with pytest.raises(AssertionError):
        test_nothing_is_written_elsewhere(strange, tmp_path, None)  # type: ignore[arg-type]
