"""Adapters: they alone are trained, packed passes see them, and without them the model is the one that was loaded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from dataloaders.packing import pack
from prospect.batch import Batch
from prospect.checkpoint.lineage import Base
from prospect.config.schema import PeftConfig, Quantization
from prospect.errors import UserError
from prospect.model.adapter import Adapter, put_back, put_on, quantize, reference_state, round_as_quantized
from prospect.model.head import Head
from prospect.model.policy import Policy
from prospect.reference import LiveReference, weights_digest
from tests.model.shapes import build
from tests.model.test_policy import sequences
from tests.planted import plant

CPU = torch.device("cpu")
BASE = Base("org/base")
LORA = PeftConfig(r=4, alpha=8)
KINDS = {
    "lora": LORA,
    "dora": PeftConfig(r=4, alpha=8, use_dora=True),
    "qlora": PeftConfig(r=4, alpha=8, quantization=Quantization.nf4),
    "qdora": PeftConfig(r=4, alpha=8, quantization=Quantization.nf4, use_dora=True),
}
BATCH: Batch = pack(sequences())


def policy(peft: PeftConfig = LORA, shape: str = "llama", tokens: tuple[int, ...] = ()) -> Policy:
    model = build(shape)
    if peft.quantization is not None:
        pytest.importorskip("bitsandbytes")
        quantize(model, peft, torch.float32, CPU)
    torch.manual_seed(3)
    return Policy(model, CPU, adapter=put_on(model, peft, BASE, tokens), dropout=peft.dropout)


def trained(policy: Policy, rate: float = 0.5) -> Policy:
    """A few steps, after which every trained number is another."""
    for _ in range(3):
        policy.model.zero_grad()
        (-policy.logps(BATCH).tokens.mean()).backward()
        with torch.no_grad():
            for p in policy.model.parameters():
                if p.grad is not None:
                    p.sub_(p.grad, alpha=rate)
    return policy


def logps(policy: Policy) -> Tensor:
    with torch.no_grad():
        return policy.logps(BATCH).tokens


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapter_alone_is_trained(kind: str) -> None:
    made = policy(KINDS[kind])
    before = {name: tensor.clone() for name, tensor in reference_state(made.model.state_dict()).items()}
    start = {name: p.detach().clone() for name, p in made.model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in start)
    assert len(start) == 2 * 7 * (3 if KINDS[kind].use_dora else 2)
    trained(made)
    after = reference_state(made.model.state_dict())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(not torch.equal(p, start[name]) for name, p in made.model.named_parameters() if name in start)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_changes_nothing(kind: str) -> None:
    made = policy(KINDS[kind])
    with made.adapter_off():
        plain = logps(made)
    torch.testing.assert_close(logps(made), plain, atol=0 if "lora" in kind else 1e-5, rtol=0)
    if "q" not in kind:
        assert torch.equal(plain, logps(Policy(build("llama"), CPU)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["llama", "gpt_neox", "gemma2"])
def test_packed_passes_are_the_models_own(kind: str, shape: str) -> None:
    made = trained(policy(KINDS[kind], shape))
    assert made.check_against_own_forward(BATCH) < 1e-3


def reference_error(made: Policy) -> float:
    """Of the policy with its adapter off, against a second model."""
    return float((LiveReference(made).logps(BATCH).tokens - logps(Policy(build("llama"), CPU))).abs().max())


def test_with_the_adapter_off_it_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trained(policy())
    assert (logps(made) - logps(Policy(build("llama"), CPU))).abs().max() > 0.1
    assert reference_error(made) == 0
    plant(monkeypatch, Adapter.off.__wrapped__, "layers.disable_adapter_layers()", "pass")  # type: ignore[attr-defined]
    assert reference_error(made) > 0.1


def gradient(made: Policy, reference: Any) -> Tensor:
    """Of a loss in which policy and reference stand side by side, the reference between forward and backward."""
    made.model.zero_grad()
    ours = made.logps(BATCH)
    ratio = ours.sums - reference().sums
    (-torch.nn.functional.logsigmoid(0.1 * ratio)).sum().backward()
    return torch.cat([p.grad.reshape(-1) for p in made.model.parameters() if p.grad is not None])


def test_switching_it_off_and_on_leaves_the_gradients() -> None:
    made, second = trained(policy()), Policy(build("llama"), CPU)
    wanted = gradient(made, lambda: LiveReference(second).logps(BATCH))
    assert wanted.abs().max() > 0
    assert torch.equal(gradient(made, lambda: LiveReference(made).logps(BATCH)), wanted)


def test_the_reference_is_known_by_the_weights_without_the_adapter() -> None:
    assert weights_digest(trained(policy()).model, "x") == weights_digest(build("llama"), "x")
    other = build("llama")
    with torch.no_grad():
        next(other.parameters())[3, 4] += 1e-3
    assert weights_digest(other, "x") != weights_digest(build("llama"), "x")


def test_dropout_belongs_to_passes_with_gradients() -> None:
    made = trained(policy(PeftConfig(r=4, alpha=8, dropout=0.5)))
    assert torch.equal(logps(made), logps(made))
    assert not torch.equal(made.logps(BATCH).tokens, made.logps(BATCH).tokens)
    steady = trained(policy())
    assert torch.equal(steady.logps(BATCH).tokens, steady.logps(BATCH).tokens)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["q_prj"], "peft.target_modules: Target modules .*q_prj.* not found"),
        (["q_proj", "lm_head"], "peft.target_modules: embedding and output layer cannot carry an adapter"),
        (["embed_tokens"], "peft.target_modules: embedding and output layer cannot carry an adapter"),
    ],
)
def test_what_cannot_carry_an_adapter_is_said(names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        put_on(build("llama"), PeftConfig(r=4, target_modules=names), BASE)


def test_chosen_modules_only() -> None:
    made = policy(PeftConfig(r=2, target_modules=["q_proj", "v_proj"]))
    names = {name.split(".")[-4] for name, p in made.model.named_parameters() if p.requires_grad}
    assert names == {"q_proj", "v_proj"}


def test_four_bits_hold_what_their_rounding_says() -> None:
    pytest.importorskip("bitsandbytes")
    small, rounded = build("llama"), build("llama")
    quantize(small, KINDS["qlora"], torch.float32, CPU)
    round_as_quantized(rounded, double_quant=True)
    four, wide = logps(Policy(small, CPU)), logps(Policy(rounded, CPU))
    torch.testing.assert_close(four, wide, atol=1e-5, rtol=0)
    assert 1e-3 < (wide - logps(Policy(build("llama"), CPU))).abs().mean() < 1.5  # of random weights
    weight: Any = small.get_submodule("model.layers.0.self_attn.q_proj").weight
    assert (weight.dtype, weight.numel()) == (torch.uint8, 32 * 32 // 2)
    single = build("llama")
    round_as_quantized(single, double_quant=False)
    assert not torch.equal(logps(Policy(single, CPU)), wide)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_put_back(kind: str, tmp_path: Path) -> None:
    made = trained(policy(KINDS[kind]))
    assert made.adapter is not None
    made.adapter.save(tmp_path)
    model = build("llama")
    if KINDS[kind].quantization:
        quantize(model, KINDS[kind], torch.float32, CPU)
    again = Policy(model, CPU, adapter=put_back(model, tmp_path, BASE))
    assert torch.equal(logps(again), logps(made))
    assert [p.shape for p in model.parameters() if p.requires_grad] == [
        p.shape for p in made.model.parameters() if p.requires_grad
    ]


def test_an_adapter_of_another_shape_is_refused(tmp_path: Path) -> None:
    made = policy()
    assert made.adapter is not None
    made.adapter.save(tmp_path)
    with pytest.raises(UserError, match="does not fit org/base"):
        put_back(build("gpt_neox"), tmp_path, BASE)
    shallower = copy.deepcopy(build("llama").config)
    shallower.num_hidden_layers = 1
    with pytest.raises(UserError, match=r"does not fit org/base: not the model's: .*layers\.1\.mlp\.down_proj\.lora_A"):
        put_back(AutoModelForCausalLM.from_config(shallower), tmp_path, BASE)


def rows(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Of the new tokens and of all others, as the model uses them: input and output side by side."""
    inputs: Any = model.get_input_embeddings().weight
    outputs: Any = model.get_output_embeddings().weight
    both = torch.cat([inputs, outputs], dim=1).detach()
    return both[96:98].clone(), both[:96].clone()


def grown(shape: str) -> PreTrainedModel:
    model = build(shape)
    torch.manual_seed(5)
    model.resize_token_embeddings(98, mean_resizing=False)
    return model


@pytest.mark.parametrize("shape", ["llama", "qwen3"])  # tied and untied embeddings
@pytest.mark.parametrize("bits", [None, Quantization.nf4])
def test_rows_of_new_tokens_are_trained_and_saved(shape: str, bits: Quantization | None, tmp_path: Path) -> None:
    peft = PeftConfig(r=4, alpha=8, quantization=bits)
    model = grown(shape)
    assert model.config.tie_word_embeddings == (shape == "llama")
    if bits is not None:
        pytest.importorskip("bitsandbytes")
        quantize(model, peft, torch.float32, CPU)
    made = Policy(model, CPU, adapter=put_on(model, peft, BASE, (96, 97)))
    batch = pack(sequences())
    batch.input_ids[0], batch.input_ids[30] = 96, 97
    new, old = rows(model)
    for _ in range(3):
        model.zero_grad()
        (-made.logps(batch).tokens.mean()).backward()
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p.sub_(p.grad, alpha=0.5)
    assert made.check_against_own_forward(batch) < 1e-4
    now, others = rows(model)
    assert torch.equal(others, old)
    assert ((now - new).abs().amax(1) > 0).all()
    with made.adapter_off(), torch.no_grad():
        plain = Policy(grown(shape), CPU)
        if bits is None:
            assert torch.equal(made.logps(batch).tokens, plain.logps(batch).tokens)
    assert made.adapter is not None
    made.adapter.save(tmp_path)
    other = build(shape)  # without the rows: they come with the adapter
    if bits is not None:
        quantize(other, peft, torch.float32, CPU)
    again = Policy(other, CPU, adapter=put_back(other, tmp_path, BASE))
    again.head = Head.of(other)
    with torch.no_grad():
        torch.testing.assert_close(again.logps(batch).tokens, made.logps(batch).tokens, atol=1e-5, rtol=0)
