"""Hydra: from the words of a command line to plain values, every choice checked first.

``key=value`` is handed on as ``++key=value``, so that Hydra takes any key and our own types are the one place that
judges them. Choices of groups (loss=kto) are looked up before. Hydra writes no files and configures no logging.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from prospect.config.environment import put, taken
from prospect.config.names import text_keys
from prospect.config.own_files import is_file_name, name_of, own_files
from prospect.errors import MachineError, UserError, nearest

CONFIG = Path(__file__).resolve().parents[2] / "config"
MANY = ("datasets", "logger")  # groups of which several members may be chosen
OPTIONAL = ("experiment", "sweep")  # groups of which none need be chosen
_QUIET = (  # Hydra keeps no folders and configures no logging; what a sweep must leave behind goes aside
    *("hydra.output_subdir=null", "hydra.run.dir=.", "hydra.sweep.dir=${cache_dir}/.sweep", "hydra.sweep.subdir=."),
    *("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.job.chdir=false"),
)
_SWEEPS = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True, slots=True)
class Composed:
    """One run's values with the choices that brought them."""

    values: dict[str, Any]
    choices: dict[str, str | None]  # of the groups with one member
    environment: dict[str, Any]  # by dotted key, the text of values from environment variables


def with_texts(composed: Composed) -> dict[str, Any]:
    """Values as they may be written down."""
    return put(composed.values, composed.environment)


class Composer:
    """config/ as Hydra sees it."""

    def __init__(self, hydra: Hydra) -> None:
        self._hydra, self._known = hydra, dict[tuple[str, ...], Composed]()
        self._listed: dict[tuple[str, ...], list[str]] = {}  # the members of a group, below a search path

    @property
    def _loader(self) -> Any:
        return self._hydra.config_loader

    def groups(self) -> list[str]:
        """The groups that a user chooses from."""
        return [str(group) for group in self._loader.list_groups("") if group != "hydra"]

    def members(self, group: str, searchpath: Sequence[str] = ()) -> list[str]:
        """The files of a group, but for those that only others build on."""
        key = (group, *searchpath)
        if key not in self._listed:
            found = self._loader.get_group_options(group, ObjectType.CONFIG, "config", list(searchpath))
            self._listed[key] = [name for name in found if not name.startswith("_")]
        return self._listed[key]

    def words(self, typed: Sequence[str]) -> list[str]:
        """Typed words as Hydra shall read them.

        Raises:
            UserError: one line a word that cannot be read, or that chooses what does not exist.
        """
        problems, found, groups = [], [], self.groups()
        path = [word for word in typed if word.startswith("hydra.searchpath=")]
        for word in map(_expanded, typed):
            try:
                override = parse(word)
                if override.key_or_group == "datasets":
                    word, *own = self._files_apart(word, override, path)
                    override = parse(word)
                    found += own
                if override.key_or_group in groups:
                    self._check_choice(override, path)
            except UserError as error:
                problems.append(str(error))
                continue
            if override.key_or_group in OPTIONAL and override.value() is None:
                continue
            word = override.input_line or word
            theirs = override.key_or_group.startswith(("hydra.", "hydra/"))
            plain = word.lstrip("+")
            found.append(word if theirs else plain if override.key_or_group in groups else f"++{plain}")
        if problems:
            raise UserError("\n".join(problems))
        return found

    def _files_apart(self, word: str, override: Override, searchpath: Sequence[str]) -> list[str]:
        """The choice of data sets without the files that stand in it, then words that make a data set of each file."""
        members, sweep = self.members("datasets", searchpath), override.is_sweep_override()
        options = [parse(f"x={o}").value() for o in override.sweep_string_iterator()] if sweep else [override.value()]
        names = [str(name) for option in options for name in (option if isinstance(option, list) else [option])]
        files = [name for name in names if is_file_name(name, members)]
        if not files:
            return [word]
        if sweep:
            one = f"datasets=[files] datasets.files.path={','.join(files)} -m"
            raise UserError(f"datasets: takes files as a list, [{','.join(names)}]; one after the other: {one}")
        sets, own = own_files(names, members)
        return [f"datasets=[{','.join(sets)}]", *(word for file in own for word in (file.source_word, file.path_word))]

    def _check_choice(self, override: Override, searchpath: Sequence[str]) -> None:
        group, members = override.key_or_group, self.members(override.key_or_group, searchpath)
        sweep = override.is_sweep_override()
        options = [parse(f"x={o}").value() for o in override.sweep_string_iterator()] if sweep else [override.value()]
        for option in options:
            if isinstance(option, list) and group not in MANY:
                raise UserError(f"{group}: takes one choice: {group}={option[0] if option else members[0]}")
            for name in option if isinstance(option, list) else [option]:
                if name is None and group in OPTIONAL:
                    continue
                name = "null" if name is None else str(name)
                if name not in members:
                    hint = nearest(name, members) or f"; there are {', '.join(members)}"
                    if group == "model" and "/" in name:
                        hint = f"; for a model of your own choose the nearest one and set model.name_or_path={name}"
                    raise UserError(f"{group}: there is no {name}{hint}")

    def compose(self, words: Sequence[str]) -> Composed:
        """The values of one run.

        Raises:
            UserError: what Hydra says about a file that does not fit, in one line.
        """
        key = tuple(words)
        if key not in self._known:
            with _one_line():
                full = self._loader.load_configuration("config", list(words), RunMode.RUN)
                choices = _plain(full.hydra.runtime.choices)
                with flag_override(full, ["struct", "readonly"], [False, False]):
                    del full["hydra"]
                self._known[key] = Composed(_plain(full), choices, taken(full))
        return self._known[key]

    def name_parts(self, words: Sequence[str]) -> tuple[dict[str, str | None], dict[str, Any], dict[str, Any]]:
        """What a run's default name is made of: choices, values, and the values of these choices alone."""
        groups = self.groups()
        chosen = [word for word in words if parse(word).key_or_group in groups]
        own, base = self.compose(words), self.compose([*chosen, *_file_words(words)])
        usual = self.compose([word for word in chosen if not word.startswith("datasets=")])
        choices = dict(own.choices)
        if set(base.values["datasets"]) != set(usual.values["datasets"]):
            choices["datasets"] = "-".join(sorted(base.values["datasets"]))
        if choices.get("peft") == "none":
            choices["peft"] = None
        return choices, with_texts(own), with_texts(base)

    def sweep(self, words: Sequence[str], asked: bool) -> list[list[str]] | None:
        """The words of each member, or None if this is a single run; ``asked``: -m was typed.

        Of a sweep that chooses its members as it goes (Optuna) only the fixed part can be told beforehand.
        """
        with _one_line():
            master = self._loader.load_configuration("config", list(words), RunMode.MULTIRUN)
        varied = [word for word in words if parse(word).is_sweep_override()]
        if not asked and master.hydra.mode != RunMode.MULTIRUN:
            if varied:
                word = varied[0].lstrip("+")
                key, _, value = word.partition("=")
                also = f", or write {key}=[{value}]" if key in MANY else ""
                raise UserError(f"{word}: several values make a sweep: add -m{also}")
            return None
        if master.hydra.sweeper._target_ != _SWEEPS:
            return [[word for word in words if word not in varied]]
        params = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
        both = [parse(word) for word in [*self.words(params), *words] if not word.startswith("hydra")]
        return BasicSweeper.split_arguments(both, None)[0]

    def multirun(self, words: Sequence[str], task: Callable[[DictConfig], Any]) -> None:
        """Hand a sweep to Hydra's sweeper and launcher."""
        with _one_line():
            self._hydra.multirun("config", task, [*_QUIET, *words])


@contextlib.contextmanager
def composer() -> Iterator[Composer]:
    """Hydra on this checkout's config/."""
    if not (CONFIG / "config.yaml").is_file():
        raise MachineError(f"{CONFIG}/config.yaml is missing: prospect runs from its checkout (pip install -e .)")
    running = GlobalHydra.instance().hydra
    if running is not None:  # inside a member of a sweep
        yield Composer(running)
        return
    with initialize_config_dir(str(CONFIG), job_name="train", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield Composer(hydra)


def parse(word: str) -> Override:
    """One word as Hydra reads it.

    Raises:
        UserError: not an override, or one that deletes.
    """
    key, equals, value = word.partition("=")
    if word.startswith("-"):
        raise UserError(f"{word}: there is no such option; keys are written without dashes: {key.lstrip('-')}=<value>")
    if word.startswith("~"):
        raise UserError(f"{word}: keys cannot be deleted; set it to null")
    if not equals:
        raise UserError(f"{word}: expected key=value")
    try:
        parser = OverridesParser.create()
        override = parser.parse_override(word)
        if isinstance(override.value(), int | float) and override.key_or_group in text_keys():
            override = parser.parse_override(f'{key}="{value}"')
        return override
    except HydraException as error:
        what = str(error).splitlines()[0]
        quoted = f"""'{key}="{value}"'"""
        raise UserError(f"{word}: cannot be read ({what}); no spaces in lists, quotes around text: {quoted}") from None


def _file_words(words: Sequence[str]) -> list[str]:
    """Words that make a data set of a file that lies here, and are said by the data set's name."""
    given = {word.partition("=")[0]: word for word in words}
    found = []
    for key, word in given.items():
        match = re.fullmatch(r"\+\+datasets\.(\w+)\.path", key)
        source = match and given.get(f"++datasets.{match[1]}.source")
        if match is None or source != f"++datasets.{match[1]}.source=files":
            continue
        path = parse(word).value()
        if isinstance(path, str) and re.fullmatch(rf"{re.escape(name_of(path))}(_\d+)?", match[1]):
            found += [source, *([word] if Path(path).name == path else [])]
    return found


def _expanded(word: str) -> str:
    """A value that starts with ~/ means the home folder: shells leave it alone after ++key=."""
    key, _, value = word.partition("=")
    return f"{key}={Path(value).expanduser()}" if value.startswith("~/") else word


def _plain(node: DictConfig) -> dict[str, Any]:
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        logging.getLogger("prospect").debug("Hydra", exc_info=True)
        raise UserError("config: " + " ".join(str(error).split())[:400]) from error


def typed_keys(words: Sequence[str]) -> Mapping[str, Any]:
    """The keys that a user has set, with their values."""
    return {
        override.key_or_group: override.value() for override in map(parse, words) if not override.is_sweep_override()
    }
