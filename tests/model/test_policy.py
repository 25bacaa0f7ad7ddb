"""Packed sequences under a tiled head give what the plain model gives: padded rows, eager attention, full logits."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dataloaders.packing import Sequence, pack
from prospect.batch import Batch, Role
from prospect.errors import UserError
from prospect.model import attention, head
from prospect.model.between import Between
from prospect.model.head import Head
from prospect.model.policy import Policy
from tests.model.shapes import SHAPES, build
from tests.planted import plant

CPU = torch.device("cpu")
LENGTHS = ((9, 14), (1, 1), (3, 30), (12, 2), (20, 21))  # of prompts and answers


def sequences(seed: int = 0, changed: frozenset[int] = frozenset()) -> list[Sequence]:
    """Random ids; those of the sequences in ``changed`` are others."""
    made = []
    for i, (prompt, answer) in enumerate(LENGTHS):
        generator = torch.Generator().manual_seed(seed + i + 1000 * (i in changed))
        ids = torch.randint(3, 96, (prompt + answer,), generator=generator).tolist()
        mask = [k % 5 != 3 for k in range(answer)]  # later turns' questions are not trained
        made.append(Sequence(str(i), ids[:prompt], ids[prompt:], mask, Role.chosen))
    return made


def plain(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Log-probabilities from right-padded rows and full logits."""
    spans = [(batch.bounds[i], batch.bounds[i + 1]) for i in range(len(batch))]
    ids = torch.nn.utils.rnn.pad_sequence([batch.input_ids[a:b] for a, b in spans], True, padding_value=2)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(b - a, dtype=torch.long) for a, b in spans], True)
    logps = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
    starts = torch.tensor(batch.bounds)[batch.segment]
    return logps[batch.segment, batch.scored - starts, batch.targets]


def run(model: torch.nn.Module, logps: Callable[[Batch], Tensor]) -> tuple[float, Tensor]:
    """A weighted mean of the sequences' log-probabilities, and its gradient."""
    batch = pack(sequences())
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0], dtype=torch.float64)[batch.segment]
    loss = (logps(batch).double() * weights).sum() / len(weights)
    model.zero_grad()
    loss.backward()
    return float(loss.detach()), torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])


def differences(name: str, dtype: torch.dtype = torch.float32) -> tuple[float, float]:
    """Of loss, and of the gradient relative to its size."""
    ours, theirs = build(name, dtype=dtype), build(name, "eager", dtype)
    loss, grad = run(ours, lambda batch: Policy(ours, CPU).logps(batch).tokens)
    wanted_loss, wanted_grad = run(theirs, lambda batch: plain(theirs, batch))
    assert len(grad) == len(wanted_grad)
    return abs(loss - wanted_loss), float((grad - wanted_grad).norm() / wanted_grad.norm())


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one tile, the first kept for the backward pass, and a last one that is not full."""
    monkeypatch.setitem(head._TILE, "cpu", (16, 2**20))
    monkeypatch.setitem(head._KEPT, "cpu", 2**14)


@pytest.mark.parametrize("name", SHAPES)
def test_packed_and_tiled_equals_padded_and_full(name: str) -> None:
    loss, gradient = differences(name)
    assert loss <= 1e-6
    assert gradient <= 1e-5


def all_in_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's norms and softmax go down to float32 by themselves: not for this test."""
    library = sys.modules[type(build(name)).__module__]
    for part in [library.eager_attention_forward, *(x.forward for n, x in vars(library).items() if "Norm" in n)]:
        source = inspect.getsource(part)
        for narrow, wide in (("torch.float32", "torch.float64"), (".float()", ".double()")):
            if times := source.count(narrow):
                plant(monkeypatch, part, narrow, wide, times)


@pytest.mark.parametrize("name", SHAPES)
def test_in_float64_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    all_in_float64(name, monkeypatch)
    loss, gradient = differences(name, torch.float64)
    assert max(loss, gradient) <= 1e-8


@pytest.mark.parametrize(
    ("name", "function", "old", "new"),
    [
        ("llama", attention._one_piece, "is_causal=True", "is_causal=False"),
        ("gpt_neox", attention.packed_attention, "(query, key, value))", "(query, key.roll(1, 2), value.roll(1, 2)))"),
        ("mistral", attention._visible, "distance < window", "distance <= window"),
        ("mistral", attention._one_piece, "seen <= window", "True"),
        ("gemma2", attention._one_piece, "(scores / softcap).tanh() * softcap", "scores"),
        ("gemma2", Between.logits, "squashed * self.softcap, 1 - squashed * squashed", "squashed * self.softcap, None"),
        ("gemma2", attention._one_piece, "if scaling is None else scaling", ""),
        ("cohere", Head.of, "scale, getattr", "1.0, getattr"),
        ("granite", Head.of, 'getattr(config, "logits_scaling", None)', "None"),
        ("phi", Between.logits, "logits += bias", "pass"),
        ("llama", head._tiles, "at + size)", "at + size - 1)"),
        ("llama", head._TokenLogps.backward, "normalizers[tile]", "normalizers[: len(rows)]"),
    ],
)
def test_a_planted_bug_is_seen(
    name: str, function: Callable[..., object], old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, function, old, new)
    loss, gradient = differences(name)
    assert not (loss <= 1e-6 and gradient <= 1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "cohere"])
def test_other_documents_change_nothing_to_the_last_bit(name: str) -> None:
    policy = Policy(build(name), CPU)
    one, other = (policy.logps(pack(sequences(changed=c))).tokens for c in (frozenset[int](), frozenset({1, 2, 4})))
    kept = torch.isin(pack(sequences()).segment, torch.tensor([0, 3]))
    assert torch.equal(one[kept], other[kept])
    assert not torch.equal(one[~kept], other[~kept])


def test_one_document_alone_or_among_others_is_the_same() -> None:
    policy = Policy(build("llama"), CPU)
    together = policy.logps(pack(sequences()))
    for i, item in enumerate(sequences()):
        alone = policy.logps(pack([item])).tokens
        torch.testing.assert_close(together.tokens[together.segment == i], alone, rtol=0, atol=2e-6)


def test_activation_checkpointing_changes_nothing() -> None:
    model = build("llama")
    loss, grad = run(model, lambda batch: Policy(model, CPU).logps(batch).tokens)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again, grad_again = run(model, lambda batch: Policy(model, CPU).logps(batch).tokens)
    assert loss == again
    torch.testing.assert_close(grad, grad_again, rtol=0, atol=0)


def test_bfloat16_computes_in_bfloat16_and_sums_in_float64() -> None:
    batch, model = pack(sequences()), build("llama")
    logps = Policy(model, CPU, torch.bfloat16).logps(batch)
    assert logps.tokens.dtype == torch.float32
    assert logps.sums.dtype == torch.float64
    exact = Policy(model, CPU).logps(batch).tokens
    assert 0 < (logps.tokens - exact).abs().max() < 0.3


@pytest.mark.parametrize("name", SHAPES)
def test_start_check_accepts_each_architecture(name: str) -> None:
    policy = Policy(build(name), CPU)
    assert policy.check_against_own_forward(pack(sequences())) < 1e-4
    assert policy.model.config._attn_implementation == attention.NAME


def test_start_check_refuses_a_model_whose_scale_is_not_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, Head.of, "scale, getattr", "1.0, getattr")
    with pytest.raises(UserError, match="CohereForCausalLM computes what packed attention or the tiled head does not"):
        Policy(build("cohere"), CPU).check_against_own_forward(pack(sequences()))
