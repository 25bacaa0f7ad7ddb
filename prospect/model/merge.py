"""An adapter and the model that it stands on as one plain model, which any program loads.

What is on disk is loaded again and its logits are compared with those of the model and its adapter before anything old
is replaced. An adapter over 4 bits is merged into what those bits stand for, at full width: it was trained on that.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prospect.checkpoint.commit import committed
from prospect.config.schema import Config
from prospect.errors import UserError
from prospect.model.adapter import is_scorer, merged, vocabulary
from prospect.model.export import Facts, results_in, save_policy
from prospect.model.load import load_with_adapter
from prospect.model.pretrained import read_model
from prospect.model.score import scorer_with_adapter
from prospect.model.value_head import FILE as V_HEAD

TOLERANCE = 1e-5  # of float32 logits, relative to the largest where that is above 1
_PROBES, _LENGTH = 4, 32


def merge(
    config: Config,
    adapter: Path,
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: Sequence[int],
    target: Path,
    datasets: tuple[str, ...] = (),
) -> float:
    """Write the merged model to ``target``; the largest difference of a logit. ``datasets``: hub ids for its card.

    Raises:
        UserError: the two compute different things; ``target`` is as it was.
    """
    scores = is_scorer(adapter)
    put = (
        scorer_with_adapter(config, adapter, tokenizer, stop_ids, "sdpa")
        if scores
        else load_with_adapter(config, adapter, tokenizer, "sdpa")
    )
    name = put.base.name
    expected = _logits(put.wrapper.get_base_model())
    with committed(target) as building:
        facts = Facts(datasets, results_in(adapter))
        save_policy(merged(put), tokenizer, list(stop_ids), config, building, facts=facts)
        if (adapter / V_HEAD).is_file():
            shutil.copy2(adapter / V_HEAD, building)
        del put
        kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
        trust = config.model.trust_remote_code
        got = _logits(read_model(kind, str(building), trust=trust, dtype=torch.float32))
        worst = float((got - expected).abs().max())
        if not worst <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise UserError(
                f"{adapter}: merged into {name} it is another model (a logit differs by {worst:.3g}); "
                f"{target} is left as it was"
            )
    return worst


@torch.no_grad()
def _logits(model: torch.nn.Module) -> Tensor:
    """Of random tokens, all ids equally likely; the last ones, where new tokens stand, are among them."""
    assert isinstance(model, PreTrainedModel)
    size = vocabulary(model)
    ids = torch.randint(size, (_PROBES, _LENGTH), generator=torch.Generator().manual_seed(0))
    ids[:, -4:] = torch.arange(size - 4, size)
    logits = model.eval()(input_ids=ids, use_cache=False).logits
    assert isinstance(logits, Tensor)
    return logits
