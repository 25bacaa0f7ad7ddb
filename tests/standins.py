"""Small local stand-ins for the models and data sets that documented commands name, and a way to run those commands."""

from __future__ import annotations

import json
import os
import random
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from transformers import LlamaConfig, LlamaForCausalLM

from prospect.judge.preflight import CANDIDATES
from prospect.model.load import train_tokenizer
from tests.judge.conftest import Stub
from tests.runs import FORKS

CHECKOUT = Path(__file__).resolve().parents[1]
WORDS = ("the", "a", "red", "green", "quiet", "river", "stone", "walks", "sings", "under", "over", "seven", "clouds")


def write_jsonl(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def _talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@contextmanager
def judged(place: Place) -> Iterator[Place]:
    """The place with a judge's server at hand, under the name of the first model that the preflight looks for."""
    stub = Stub()
    stub.models = [{"id": CANDIDATES[0], "object": "model"}]
    place.env |= {"OPENAI_BASE_URL": stub.url, "OPENAI_API_KEY": "none"}
    try:
        yield place
    finally:
        stub.close()


@dataclass
class Place:
    """A folder with stand-ins, in which documented commands are run.

    ``warm``: in processes that have imported already what most of them import, which is a third of what they take or
    more. ``checkout``: whose scripts and modules they are, this one's or a copy's. ``whole``: runs on the demo's data
    are evaluated on as many rows as their commands say.
    """

    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    warm: bool = False
    checkout: Path = CHECKOUT
    whole: bool = False

    def __post_init__(self) -> None:
        rng = random.Random(0)

        def words(count: int) -> str:
            return " ".join(rng.choices(WORDS, k=count))

        self.model = self.folder / "llama"
        tokenizer = train_tokenizer([words(12) for _ in range(50)], 300)
        shape = LlamaConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            vocab_size=300,
            max_position_embeddings=2048,
            eos_token_id=0,
            pad_token_id=1,
        )
        LlamaForCausalLM(shape).save_pretrained(self.model)
        tokenizer.save_pretrained(self.model)
        posts = [(f"post {i}: {words(8)}", words(6), words(9)) for i in range(36)]
        shp: list[dict[str, Any]] = [
            {"history": h, "human_ref_A": a, "human_ref_B": b, "score_A": 9, "score_B": 2, "labels": 1, "domain": "d"}
            for h, a, b in posts
        ]
        hh: list[dict[str, Any]] = [
            {key: f"\n\nHuman: {h}\n\nAssistant: {text}" for key, text in (("chosen", a), ("rejected", b))}
            for h, a, b in posts
        ]
        oasst: list[dict[str, Any]] = []
        for i, (h, a, b) in enumerate(posts):
            oasst.append({"message_id": f"q{i}", "parent_id": None, "text": h, "role": "prompter", "lang": "en"})
            for rank, text in enumerate((a, b)):
                answer = {"message_id": f"a{i}{rank}", "parent_id": f"q{i}", "text": text, "role": "assistant"}
                oasst.append({**answer, "lang": "en", "rank": rank})
        for row in oasst:
            row.setdefault("rank", None)
        alpaca = [{"instruction": h, "output": a, "dataset": "helpful_base", "generator": "x"} for h, a, _ in posts[:4]]
        pairs = [{"prompt": h, "chosen": a, "rejected": b} for h, a, b in posts]
        ultrabin: list[dict[str, Any]] = [
            {"prompt": h, "chosen": _talk(h, a), "rejected": _talk(h, b), "messages": _talk(h, a)} for h, a, b in posts
        ]
        rows: dict[str, list[dict[str, Any]]] = {"shp": shp, "hh": hh, "oasst": oasst, "ultrabin": ultrabin}
        rows |= {
            "alpacaeval": alpaca,
            "instructions": [{"instruction": h, "input": "", "output": a} for h, a, _ in posts],
        }
        self.data = {name: write_jsonl(self.folder / f"{name}.jsonl", x) for name, x in rows.items()}
        write_jsonl(self.folder / "pairs.jsonl", pairs)
        (self.folder / "texts.txt").write_text("".join(f"{h} {a}\n" for h, a, _ in posts))
        asked = [{"question_id": 81 + i, "category": "math", "turns": [h, a]} for i, (h, a, _) in enumerate(posts[:2])]
        write_jsonl(self.folder / "question.jsonl", asked)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a documented command line here; only where models and data lie, and how many rows, is changed."""
        words = shlex.split(command.replace("/data/models", str(self.folder / "models")), comments=True)
        if words[0] == "pytest":
            words[:1] = ["python", "-m", "pytest"]
        assert words[0] == "python", command
        if words[1] != "-m":
            words[1] = str(self.checkout / words[1])
        if words[1].endswith("train.py"):
            words += self._here(words)
        if "++mode=alpacaeval" in words:
            words.append(f"++datasets.alpacaeval.path={self.data['alpacaeval']}")
        quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        env = {**os.environ, **quiet, "PYTHONPATH": str(self.checkout), **self.env}
        if self.warm:
            return self._run_warm(words[1:], env)
        words[0] = sys.executable
        return subprocess.run(words, cwd=self.folder, env=env, capture_output=True, text=True, timeout=300)

    def _run_warm(self, words: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        said = [self.folder / "stdout", self.folder / "stderr"]
        process = FORKS.Process(target=_become, args=(words, self, env, said))
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{shlex.join(words)} takes more than 300 seconds")
        return subprocess.CompletedProcess(words, process.exitcode, *(file.read_text("utf-8") for file in said))

    def _here(self, words: list[str]) -> list[str]:
        """Where the models and data of train.py's ``words`` lie here, and fewer rows of data that bring their own."""
        orpo = any(word.startswith("experiment=orpo") for word in words)
        if not orpo and "model=llama7b" not in words:
            return ["n_eval_examples=16"] if "datasets=[demo]" in words and not self.whole else []
        here = [f"++model.name_or_path={self.model}"]
        if orpo:
            settings = ("n_examples=16", "model.batch_size=4", "model.tokenizer_name_or_path=null")
            return [*here, *settings, f"++datasets.ultrabin.path={self.data['ultrabin']}"]
        chain = any(word.startswith("chain=") for word in words)
        return [*here, *(f"++datasets.{name}.path={self.data[name]}" for name in ("shp", "hh", "oasst") if not chain)]


def _become(words: list[str], place: Place, env: dict[str, str], said: list[Path]) -> None:
    """Make of this process what ``python *words`` is in the place's folder."""
    for descriptor, file in enumerate(said, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(place.folder)
    os.environ.update(env)
    constants.HF_HUB_OFFLINE = env["HF_HUB_OFFLINE"] == "1"  # these two were read from the environment on import
    constants.ENDPOINT = env.get("HF_ENDPOINT", constants.ENDPOINT)
    torch.set_num_threads(1)
    os.fsync = lambda fd: None  # it guards against a machine's end, not a process's
    if place.checkout != CHECKOUT:
        _forget_own_modules()
    sys.path.insert(0, str(place.checkout))
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def _forget_own_modules() -> None:
    """Have all that was imported from this checkout imported anew, from wherever it is found then."""
    for name in {Path(entry.name).stem for entry in CHECKOUT.iterdir() if entry.suffix == ".py" or entry.is_dir()}:
        for module in [module for module in sys.modules if module.split(".")[0] == name]:
            del sys.modules[module]
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != CHECKOUT]
