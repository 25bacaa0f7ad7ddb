"""A reward model's scores of all answers that a run will show, computed before its first step by all processes.

They are kept in <cache_dir>/.cache/reward, by reward model and conversation: what an earlier run has stored is not
computed again. Whole conversations are scored, as their rows have them, in the reward model's own tokens and template.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from dataloaders import load_examples
from dataloaders.example import Drops
from dataloaders.loader import Data
from dataloaders.records import Record, RecordKind, records
from prospect.checkpoint.commit import file_hash
from prospect.checkpoint.origin import resolve
from prospect.config.schema import Split
from prospect.conversation import Conversation
from prospect.errors import UserError
from prospect.logs import log
from prospect.model.load import Precision
from prospect.model.score import RewardModel
from prospect.parallel import World
from prospect.progress import progress
from prospect.reference import ReferenceStore
from trainers.reference_pass import needed

_WINDOW = 1024  # conversations looked at together
_KEY = "loss.reward_model"


def graded(data: Data, reward_model: str, kind: RecordKind, world: World) -> Data:
    """The same data, each answer with the score of the reward model that ``reward_model`` names."""
    config = data.config
    origin = resolve(reward_model, Path(config.cache_dir), _KEY)
    if origin.is_state_dict:
        raise UserError(f"{_KEY}: {origin.path} is no folder that loss=reward leaves")
    store = ReferenceStore(Path(config.cache_dir) / ".cache" / "reward", _digest(origin.path))
    keys: dict[str, bytes] = {}
    computed, scorer = 0, None  # type: int, RewardModel | None
    wanted = _wanted(data, kind)
    with progress("rewards", None, "answers", show=world.is_main) as bar:
        while window := list(islice(wanted, _WINDOW)):
            talks = [_conversation(record) for record in window]
            own = [_key(talk) for talk in talks]
            keys |= {record.id: key for record, key in zip(window, own, strict=True)}
            lacking = {own[i]: talks[i] for i in store.missing(own) if i % world.size == world.rank}
            if lacking:
                precision = Precision.of(config.model.reference_dtype or config.model.policy_dtype, world.device)
                place, trust = Path(config.cache_dir), config.model.trust_remote_code
                scorer = scorer or RewardModel.load(
                    origin.path, world.device, precision.autocast, _KEY, place, trust=trust
                )
                found = scorer.scores(list(lacking.values()), config.model.budget)
                store.put((key, np.array([x], dtype=np.float32)) for key, x in zip(lacking, found, strict=True))
                computed += len(lacking)
            bar.advance(len(window))
    total = sum(world.gather(computed))  # and wait for all
    log.info("rewards: scores of %s from %s, %d computed now", origin.path, store.folder, total)
    return replace(data, rewards={name: float(store.get([key])[0][0]) for name, key in keys.items()})


def _wanted(data: Data, kind: RecordKind) -> Iterator[Record]:
    """Every record that the run will show, with its texts."""
    config, training = data.config, data.train is not data.evaluation
    names = {item.id for item in needed(data, None, training)}
    splits = (Split.train, config.eval_split) if training else (config.split,)
    for name, dataset in config.datasets.items():
        for split in dict.fromkeys(splits):
            for example in load_examples(name, dataset, split, config.seed, Drops()):
                yield from (record for record in records(example, kind) if record.id in names)


def _conversation(record: Record) -> Conversation:
    return record.conversation.then(record.answers[0])


def _key(conversation: Conversation) -> bytes:
    content = [conversation.rows(), conversation.tools]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).digest()


def _digest(folder: Path) -> str:
    """Hash of a model's files: weights, shape, tokenizer, template."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".jinja"))
    return hashlib.sha256("".join(map(file_hash, files)).encode()).hexdigest()[:32]
