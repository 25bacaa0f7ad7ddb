"""Reward models: a language model whose output layer gives one number, read at an answer's last token.

They are saved as transformers' sequence classifiers with one label, so that AutoModelForSequenceClassification loads
them and gives the same scores. It reads a padded row at its last token that is no padding: the padding token must be
none that ends an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prospect.batch import Batch, Outputs, Scores
from prospect.checkpoint.origin import Origin, origin_at
from prospect.config.schema import Config, ModelConfig
from prospect.conversation import Conversation
from prospect.errors import UnwrittenError, UserError
from prospect.model import attention
from prospect.model.adapter import Adapter, is_scorer, merged, uncovered
from prospect.model.attention import Packing
from prospect.model.load import fitted, load_with_adapter, weights
from prospect.model.policy import Policy
from prospect.model.pretrained import ADDED, pretrained, read_model, read_tokenizer
from prospect.model.template import ChatFormat


@dataclass(slots=True)
class ScorePolicy(Policy):
    """A reward model as a trainer sees it: packed sequences in, one score each out."""

    def __post_init__(self) -> None:
        """It has no output layer over the vocabulary."""

    def outputs(self, batch: Batch) -> Outputs:
        """Scores of the whole sequences, prompt and answer."""
        return self.scores(batch)

    def scores(self, batch: Batch) -> Scores:
        """One a sequence, with gradients where the caller has not switched them off."""
        packing = Packing.of(batch.bounds, self.device, batch.before)
        return Scores(self.at_ends(batch.input_ids, batch.positions, packing), batch.grades)

    def at_ends(self, input_ids: Tensor, positions: Tensor, packing: Packing) -> Tensor:
        """The score [n] at each piece's last token, in the output layer's own precision: bfloat16 ties too much."""
        with self.precision():
            hidden = self.hidden(input_ids, positions, packing)
        ends = packing.offsets[1:] - 1
        layer = _layer(self.model)
        with torch.autocast(hidden.device.type, enabled=False):
            scores: Tensor = layer(hidden[ends].to(layer.weight.dtype))
        return scores.squeeze(-1)

    def difference(self, batch: Batch, ours: Outputs, i: int) -> float:
        """Between our score of sequence ``i`` and the model's own, computed for it alone."""
        assert isinstance(ours, Scores)
        with self.precision():
            own = self.model(batch.sequence(i)[None], use_cache=False).logits
        return float((own.float().squeeze() - ours.values[i]).abs())


@dataclass(frozen=True, slots=True)
class RewardModel:
    """A saved reward model with its tokenizer and chat template: conversations in, one number each out."""

    policy: ScorePolicy
    chat: ChatFormat

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        autocast: torch.dtype | None = None,
        key: str = "reward model",
        cache_dir: Path | None = None,
        trust: bool = False,
    ) -> RewardModel:
        """From a folder that a run of loss=reward has left (its LATEST), or any one-label sequence classifier.

        ``key``: where the user has named it; ``cache_dir``: where the model under an adapter may lie; ``trust``: run
        code that comes with it.

        Raises:
            UserError: the folder holds another kind of model, or no chat template.
        """
        tokenizer = read_tokenizer(str(folder), trust=trust)
        if not tokenizer.chat_template:
            raise UserError(f"{key}: the tokenizer of {folder} has no chat template")
        chat, adapter = ChatFormat(tokenizer), origin_at(folder, key).is_adapter
        if not (is_scorer(folder) if adapter else _is_classifier(pretrained(AutoConfig, str(folder), trust=trust))):
            raise UserError(f"{key}: {folder} holds no sequence classifier (a run of loss=reward leaves one)")
        implementation, _ = attention.choose(False, device, autocast or torch.float32)
        if adapter:
            place = Config(model=ModelConfig(trust_remote_code=trust), cache_dir=str(cache_dir or folder))
            model = merged(scorer_with_adapter(place, folder, tokenizer, chat.stop_ids, implementation))
        else:
            model = _classifier(str(folder), implementation, trust=trust)
        nn.Module.to(model, device)
        model.eval()
        return cls(ScorePolicy(model, device, autocast), chat)

    def encode(self, conversation: Conversation) -> list[int]:
        """Token ids of a conversation that ends with the answer; the end is kept of what is too long.

        Raises:
            UserError: the model's template does not write it.
        """
        *turns, answer = conversation.messages
        try:
            rendered = self.chat.render(replace(conversation, messages=tuple(turns)), answer)
        except UnwrittenError as reason:
            raise UserError(f"chat_template: {reason}, so the reward model cannot score it") from None
        prompt, rest, _ = self.chat.encode_pair(rendered)
        longest = getattr(self.policy.model.config.get_text_config(), "max_position_embeddings", None)
        return (prompt + rest)[-longest:] if longest else prompt + rest

    @torch.no_grad()
    def scores(self, conversations: Sequence[Conversation], tokens_at_once: int = 4096) -> list[float]:
        """One score a conversation, each of which ends with the answer to be scored."""
        found: list[float] = []
        for row in _rows([self.encode(conversation) for conversation in conversations], tokens_at_once):
            ids = torch.tensor([token for item in row for token in item], device=self.policy.device)
            positions = torch.cat([torch.arange(len(item), device=self.policy.device) for item in row])
            packing = Packing.of([0, *accumulate(map(len, row))], self.policy.device)
            found += self.policy.at_ends(ids, positions, packing).tolist()
        return found


def load_scorer(
    config: Config,
    origin: Origin | None,
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: Sequence[int],
    implementation: str,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """An earlier reward model, or a language model's body with a fresh output layer (drawn by the seed).

    The body is in ``dtype``, the output layer in float32, dropout off. The tokenizer gets a padding token where its own
    would end an answer.
    """
    model = fitted(_weights(config, origin, tokenizer, implementation, dtype), config, tokenizer)
    _settle_padding(model, tokenizer, stop_ids)
    return model


def scorer_with_adapter(
    config: Config, folder: Path, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int], implementation: str
) -> Adapter:
    """A reward model's adapter in the model that it was trained in, in float32."""
    put = load_with_adapter(config, folder, tokenizer, implementation, _weights)
    model: Any = put.wrapper.get_base_model()
    _settle_padding(model, tokenizer, stop_ids)
    return put


def _weights(
    config: Config,
    origin: Origin | None,
    tokenizer: PreTrainedTokenizerBase,
    implementation: str,
    dtype: torch.dtype,
) -> PreTrainedModel:
    spec = config.model
    options: dict[str, Any] = {"trust": spec.trust_remote_code, "revision": spec.revision if origin is None else None}
    whole = None if origin is None or origin.is_state_dict or origin.is_adapter else str(origin.path)
    name = spec.name_or_path if origin is None else whole
    if origin is not None and origin.is_adapter and is_scorer(origin.path):
        model = merged(load_with_adapter(config, origin.path, tokenizer, implementation, _weights))
    elif name is not None and _is_classifier(pretrained(AutoConfig, name, **options)):
        model = _classifier(name, implementation, **options)
    else:
        model = _with_fresh_layer(weights(config, origin, tokenizer, implementation, dtype), config.seed)
    nn.Module.to(model.base_model, dtype)
    return model


def _is_classifier(config: object) -> bool:
    return any("ForSequenceClassification" in name for name in getattr(config, "architectures", None) or ())


def _classifier(name: str, implementation: str, **options: Any) -> PreTrainedModel:
    kind = AutoModelForSequenceClassification
    model = read_model(kind, name, dtype=torch.float32, attn_implementation=implementation, **options)
    layer = _layer(model)
    if layer.out_features != 1:
        raise UserError(f"model: {name} has {layer.out_features} scores an answer; a reward model has one")
    layer.weight.data = layer.weight.data.clone()  # a product with one row depends on where the row lies in memory
    return model


def _layer(model: PreTrainedModel) -> nn.Linear:
    layer = uncovered(getattr(model, "score", None))
    if not isinstance(layer, nn.Linear):
        raise UserError(f"model: {type(model).__name__} has no linear layer that gives scores")
    return layer


def _with_fresh_layer(language_model: PreTrainedModel, seed: int) -> PreTrainedModel:
    config = language_model.config
    config.num_labels = 1
    try:
        with torch.device("meta"):  # its body is another's
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except ValueError as error:
        raise UserError(f"model: transformers has no sequence classifier for {config.model_type} models") from error
    assert isinstance(model, PreTrainedModel)
    old = _layer(model)
    outside = [name for name, _ in model.named_parameters() if not name.startswith(f"{model.base_model_prefix}.")]
    if strange := [name for name in outside if name not in ADDED["score"]]:
        raise UserError(f"model: {type(model).__name__} has {', '.join(strange)}; a reward model adds one layer")
    setattr(model, model.base_model_prefix, language_model.base_model)
    torch.manual_seed(seed)
    layer = nn.Linear(old.in_features, 1, bias=old.bias is not None)
    nn.init.normal_(layer.weight, std=getattr(config.get_text_config(), "initializer_range", 0.02))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    model.score = layer
    return model


def _settle_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int]) -> None:
    """Choose the padding token: the tokenizer's own, another that is named so, the unknown token, or a new one."""
    added = sorted(name for name in tokenizer.get_added_vocab() if "pad" in name.lower())
    for name in (tokenizer.pad_token, *added, tokenizer.unk_token):
        if name is not None and tokenizer.convert_tokens_to_ids(name) not in stop_ids:
            tokenizer.pad_token = name
            break
    else:
        if len(tokenizer) >= model.config.get_text_config().vocab_size:
            raise UserError(
                "model.tokenizer_name_or_path: the tokenizer has no padding token but the one that ends an answer, and "
                "the embedding no row for another: scores of padded answers would be read at another token"
            )
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def _rows(items: Sequence[list[int]], budget: int) -> Iterator[list[list[int]]]:
    """Consecutive items, as many as fit into ``budget`` tokens together."""
    row: list[list[int]] = []
    for item in items:
        if row and sum(map(len, row)) + len(item) > budget:
            yield row
            row = []
        row.append(item)
    if row:
        yield row
