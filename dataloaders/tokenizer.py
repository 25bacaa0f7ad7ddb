"""The tokenizer of a model that begins with random weights: learned from the run's own texts once, and kept on disk.

It lies under the hash of everything that decides it, so runs of a sweep and all starts of a run share one, and the
texts are read for the first of them only.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path

import tokenizers
from transformers import PreTrainedTokenizerBase

from dataloaders import fingerprint, load_examples
from dataloaders.example import Drops
from prospect.checkpoint.commit import committed, fault
from prospect.config.schema import Config, Split
from prospect.conversation import spoken
from prospect.locks import locked
from prospect.logs import log
from prospect.model.load import kept_tokenizer, train_tokenizer

_FILE = "tokenizer.json"


def own_tokenizer(config: Config, size: int) -> PreTrainedTokenizerBase:
    """The tokenizer of at most ``size`` tokens that the run's training texts give; trained if no earlier run has."""
    folder = Path(config.cache_dir) / ".cache" / "tokenizers" / _key(config, size)
    if not folder.is_dir() or fault(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            _keep(config, size, folder)
    return kept_tokenizer(folder / _FILE)


def training_texts(config: Config) -> list[str]:
    """All turns of the training split, with their marks: what a tokenizer made on the spot learns from."""
    texts: list[str] = []
    for name, dataset in config.datasets.items():
        for example in load_examples(name, dataset, Split.train, config.seed, Drops()):
            texts.extend([] if example.text is None else [example.text])
            texts.extend(config.human_prefix + spoken(message) for message in example.prompt)
            texts.extend(config.assistant_prefix + spoken(answer) for answer in example.answers)
    return texts


def _keep(config: Config, size: int, folder: Path) -> None:
    """Train and write, unless another process has while this one waited for the lock."""
    if folder.is_dir():
        damage = fault(folder)
        if damage is None:
            return
        log.warning("tokenizer: %s is damaged (%s); it is trained anew", folder, damage)
    backend = train_tokenizer(training_texts(config), size).backend_tokenizer
    with committed(folder) as building:
        backend.save(str(building / _FILE))


def _key(config: Config, size: int) -> str:
    facts = {
        "texts": [fingerprint(name, data, Split.train, config.seed) for name, data in config.datasets.items()],
        "marks": [config.human_prefix, config.assistant_prefix],
        "size": size,
        "code": [inspect.getsource(made) for made in (train_tokenizer, training_texts)],
        "library": tokenizers.__version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:32]
