"""Answers from a model, batched by length, each a function of (seed, prompt, sample index) alone.

Nothing but the key of its own row decides an answer's random numbers: batch size, order and resuming change nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from prospect.model.template import ChatFormat


@dataclass(frozen=True, slots=True)
class Task:
    """One answer to be sampled. ``cut``: tokens of the prompt that the model has no room for."""

    prompt_id: str
    sample: int
    prompt_ids: tuple[int, ...]
    cut: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A sampled answer. ``finish``: "stop" where the model ended it, "length" where the limit did."""

    text: str
    n_tokens: int
    finish: str


@dataclass(frozen=True, slots=True)
class Settings:
    """How answers are drawn. ``temperature`` 0 takes the most likely token each time."""

    seed: int
    temperature: float
    top_p: float
    max_new_tokens: int
    batch_size: int


def sample(
    model: PreTrainedModel, chat: ChatFormat, tasks: Sequence[Task], settings: Settings
) -> Iterator[list[tuple[Task, Answer]]]:
    """Answers batch by batch, long prompts first (so that a lack of memory shows at once)."""
    ordered = sorted(tasks, key=lambda t: (-len(t.prompt_ids), t.prompt_id, t.sample))
    for at in range(0, len(ordered), settings.batch_size):
        batch = ordered[at : at + settings.batch_size]
        yield list(zip(batch, _answers(model, chat, batch, settings), strict=True))


@torch.no_grad()
def _answers(model: PreTrainedModel, chat: ChatFormat, batch: Sequence[Task], settings: Settings) -> list[Answer]:
    tokenizer = chat.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    width = max(len(task.prompt_ids) for task in batch)
    ids = torch.full((len(batch), width), pad, device=model.device)
    mask = torch.zeros_like(ids)
    for row, task in enumerate(batch):  # padded on the left: every row's next token stands in the same column
        ids[row, width - len(task.prompt_ids) :] = torch.tensor(task.prompt_ids, device=model.device)
        mask[row, width - len(task.prompt_ids) :] = 1
    processors = LogitsProcessorList()
    if settings.temperature > 0:
        processors.append(TemperatureLogitsWarper(settings.temperature))
        if settings.top_p < 1:
            processors.append(TopPLogitsWarper(settings.top_p))
        processors.append(_Drawn([_uniforms(task, settings) for task in batch], width))
    generate: Any = model.generate  # transformers gives it no type
    out = generate(
        input_ids=ids,
        attention_mask=mask,
        logits_processor=processors,
        generation_config=GenerationConfig(
            do_sample=False, max_new_tokens=settings.max_new_tokens, eos_token_id=list(chat.stop_ids), pad_token_id=pad
        ),
    )
    return [_answer(chat, row[width:].tolist()) for row in out]


def _answer(chat: ChatFormat, ids: list[int]) -> Answer:
    end = next((i for i, token in enumerate(ids) if token in chat.stop_ids), None)
    kept = ids if end is None else ids[:end]
    return Answer(chat.read(kept), len(kept), "length" if end is None else "stop")


def _uniforms(task: Task, settings: Settings) -> np.ndarray:
    """One uniform number a token, from the task's own key."""
    key = f"{settings.seed}|{task.prompt_id}|{task.sample}".encode()
    seed = int.from_bytes(hashlib.sha256(key).digest()[:16])
    return np.random.Generator(np.random.Philox(key=seed)).random(settings.max_new_tokens)


class _Drawn(LogitsProcessor):
    """Leaves one token a row: the one that the row's own uniform number picks from the cumulative distribution."""

    def __init__(self, uniforms: list[np.ndarray], width: int) -> None:
        self.uniforms, self.width = torch.from_numpy(np.stack(uniforms)), width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        cumulative = scores.double().softmax(-1).cumsum(-1)
        drawn = self.uniforms[:, input_ids.shape[1] - self.width].to(scores.device)[:, None]
        # Scaled by the last entry, which rounding leaves a little off 1.
        token = torch.searchsorted(cumulative, drawn * cumulative[:, -1:], right=True)
        token = token.clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, float("-inf")).scatter(1, token, 0.0)
