"""The prompts of a split, each once, with the best answer that is known for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from dataloaders import load_examples
from dataloaders.example import Drops, Example
from dataloaders.tokenization import prompt_key
from prospect.config.schema import Config
from prospect.conversation import Conversation, Message
from prospect.errors import UserError


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt to be answered; ``chosen`` is what people preferred, None where no answer was."""

    id: str
    dataset: str
    category: str
    conversation: Conversation
    chosen: Message | None


def prompts(config: Config) -> list[Prompt]:
    """``n_samples`` prompts of ``split`` (all with null): those of the lowest hash, the same ones each time."""
    found: dict[int, Prompt] = {}
    for example in _examples(config):
        if example.text is not None:
            continue
        key = prompt_key(example.conversation)
        if key not in found:
            found[key] = Prompt(f"{key:016x}", example.dataset, example.category, example.conversation, _best(example))
    if not found:
        raise UserError(f"datasets: {', '.join(config.datasets)}: texts only, no prompts to answer")
    ordered = sorted(found, key=lambda key: hashlib.sha256(str(key).encode()).digest())
    return [found[key] for key in ordered[: config.n_samples]]


def _examples(config: Config) -> Iterator[Example]:
    for name, dataset in config.datasets.items():
        yield from load_examples(name, dataset, config.split, config.seed, Drops())


def _best(example: Example) -> Message | None:
    if example.pairs:
        return example.answers[example.pairs[0][0]]
    return None if example.imitate is None else example.answers[example.imitate]
