"""Judges on this machine: a chat model's weights of the label tokens, and a reward model's scores.

Both need torch, which is imported only here, when such a judge is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from prospect.conversation import asked
from prospect.errors import UserError
from prospect.judge.games import Game, Judgment, Status
from prospect.judge.options import Asking
from prospect.judge.prompt import JudgePrompt
from prospect.judge.verdict import DECORATION, read_weights
from prospect.model.pretrained import pretrained, read_model, read_tokenizer
from prospect.model.score import RewardModel
from prospect.progress import progress

if TYPE_CHECKING:
    from prospect.judge.judges import Answered

_BATCH = 8
_SHORT = 6  # characters of a token that may be a label
_SALT = b"a judge without a ledger"


def reward(asking: Asking, items: Sequence[Answered]) -> list[float | None]:
    """A reward model's scores of answers to their conversations."""
    folder = _folder(asking, "rm:")
    model = RewardModel.load(folder, _device(), key=f"-j {asking.judge}", trust=asking.trust_remote_code)
    found: list[float | None] = []
    with progress(f"judging with {asking.judge}", len(items), "answers") as bar:
        for start in range(0, len(items), 64):
            some = items[start : start + 64]
            found += model.scores([(item.turns or asked(item.conversation)).then(item.answer) for item in some])
            bar.advance(len(some))
    return found


class Weigher:
    """A causal language model that judges by the log-probabilities of its first token."""

    def __init__(self, asking: Asking) -> None:
        folder = str(_folder(asking, "hf:"))
        key = f"-j {asking.judge}"
        trust = asking.trust_remote_code
        architectures = pretrained(AutoConfig, folder, trust=trust).architectures or ()
        if not any("CausalLM" in name or "ConditionalGeneration" in name for name in architectures):
            raise UserError(f"{key}: {folder} holds no language model (a reward model is rm:DIR)")
        self._asking = asking
        self._tokenizer = read_tokenizer(folder, trust=trust)
        if not self._tokenizer.chat_template:
            raise UserError(f"{key}: the tokenizer of {folder} has no chat template")
        self._vocabulary = {token: i for token, i in self._tokenizer.get_vocab().items() if len(token) < _SHORT}
        self._device = _device()
        dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        self._model = read_model(AutoModelForCausalLM, folder, trust=trust, dtype=dtype)
        torch.nn.Module.to(self._model, self._device)
        self._model.eval()

    def judge(self, prompt: JudgePrompt, games: Sequence[Game]) -> list[Judgment]:
        """Judgments by weights. A prompt that asks for words is asked for the label alone."""
        from prospect.judge.judges import labels_of

        order = sorted(range(len(games)), key=lambda i: sum(map(len, games[i].shown)))
        found: dict[int, Judgment] = {}
        with progress(f"judging with {self._asking.judge}", len(games), "games") as bar:
            for start in range(0, len(order), _BATCH):
                some = order[start : start + _BATCH]
                names = [labels_of(self._asking, prompt, games[i]) for i in some]
                texts = [self._text(prompt, games[i], labels) for i, labels in zip(some, names, strict=True)]
                for i, labels, logps in zip(some, names, self._first_token(texts), strict=True):
                    found[i] = self._judgment(games[i], labels, logps)
                bar.advance(len(some))
        return [found[i] for i in range(len(games))]

    def _text(self, prompt: JudgePrompt, game: Game, labels: str) -> str:
        """The judge's template up to its answer."""
        pair = game.pair
        messages = prompt.messages(_SALT, pair.conversation, *game.shown, reference=pair.reference, labels=labels)
        if prompt.max_tokens > 1:
            messages[-1]["content"] += f"\n\nAnswer with one character only: {labels[0]} or {labels[1]}."
        try:
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except Exception:  # templates of models without a system turn raise what they like
            merged = [{"role": "user", "content": "\n\n".join(message["content"] for message in messages)}]
            text = self._tokenizer.apply_chat_template(merged, add_generation_prompt=True, tokenize=False)
        return str(text)

    @torch.no_grad()
    def _first_token(self, texts: Sequence[str]) -> torch.Tensor:
        """Log-probabilities [texts, vocabulary] of the token after each text, rows padded on the right."""
        rows = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        longest = max(map(len, rows))
        limit = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and longest > limit:
            raise UserError(f"-j {self._asking.judge}: a game has {longest} tokens, the model reads {limit}")
        ids = torch.zeros(len(rows), longest, dtype=torch.long, device=self._device)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):  # on the right: causal attention never sees the padding, positions need no shift
            ids[i, : len(row)] = torch.tensor(row, device=self._device)
            mask[i, : len(row)] = 1
        ends = mask.sum(1) - 1
        kept, places = ends.unique(return_inverse=True)  # logits of all positions would be gigabytes
        logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits
        last = logits[torch.arange(len(rows), device=self._device), places]
        return torch.log_softmax(last.float(), dim=-1)

    def _judgment(self, game: Game, labels: str, logps: torch.Tensor) -> Judgment:
        names = {*labels, *labels.swapcase()}
        spellings = {token: i for token, i in self._vocabulary.items() if token.strip(DECORATION) in names}
        likeliest = str(self._tokenizer.decode([int(logps.argmax())]))
        found = read_weights({token: float(logps[i]) for token, i in spellings.items()}, labels)
        common = Judgment(game, None, likeliest, labels=labels)
        if found is None:
            return replace(common, status=Status.unparsed, reason=f"the likeliest token is {likeliest!r}, no label")
        return replace(common, verdict=found.verdict, how="weights", share=found.share, outside=found.outside)


def _folder(asking: Asking, prefix: str) -> Path:
    folder = Path((asking.judge or "").removeprefix(prefix))
    if folder.is_dir() and not (folder / "config.json").is_file() and (folder / "LATEST").is_dir():
        folder = folder / "LATEST"
    if not (folder / "config.json").is_file():
        raise UserError(f"-j {asking.judge}: {folder} holds no model (config.json)")
    return folder


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
