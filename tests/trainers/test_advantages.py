"""GAE on packed answers against loops over single ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.planted import plant
from trainers import advantages
from trainers.advantages import discounted, following, gae, whitened

LENGTHS = [3, 1, 5, 2]
GAMMA, LAM = 0.9, 0.7


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(sum(LENGTHS), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_loop(values: list[float], rewards: list[float]) -> list[float]:
    """Eq. 16 as a sum: A_t = Σ_l (γλ)^l δ_{t+l}."""
    n = len(values)
    after = [*values[1:], 0.0]
    deltas = [rewards[t] + GAMMA * after[t] - values[t] for t in range(n)]
    return [sum((GAMMA * LAM) ** k * deltas[t + k] for k in range(n - t)) for t in range(n)]


def both() -> tuple[list[float], list[float]]:
    values, rewards, lengths = drawn(1), drawn(2), torch.tensor(LENGTHS)
    wanted = [
        x
        for v, r in zip(values.split(LENGTHS), rewards.split(LENGTHS), strict=True)
        for x in by_loop(v.tolist(), r.tolist())
    ]
    return gae(values, rewards, lengths, GAMMA, LAM).tolist(), wanted


def test_by_hand() -> None:
    """Two tokens, values 0.5 and 0.25, reward 1: δ_2 = 0.75, δ_1 = 0.9·0.25 − 0.5 = −0.275."""
    found = gae(torch.tensor([0.5, 0.25]), torch.tensor([0.0, 1.0]), torch.tensor([2]), GAMMA, LAM)
    assert found.tolist() == pytest.approx([-0.275 + 0.63 * 0.75, 0.75])


def test_packed_answers_equal_single_ones() -> None:
    found, wanted = both()
    assert found == pytest.approx(wanted, abs=1e-12)


def test_discounted_and_following() -> None:
    x, lengths = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([3, 1])
    assert discounted(x, lengths, 0.5).tolist() == [3.0, 4.0, 4.0, 8.0]
    assert following(x, lengths).tolist() == [2.0, 4.0, 0.0, 0.0]


def test_whitened() -> None:
    found = whitened(drawn(3))
    assert float(found.mean()) == pytest.approx(0, abs=1e-12)
    assert float((found**2).mean()) == pytest.approx(1, abs=1e-6)
    assert whitened(torch.tensor([2.0])).tolist() == [0.0]


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        (advantages.gae, "gamma * lam", "lam"),
        (advantages.gae, "- values", "+ values"),
        (advantages.following, "shifted[lengths.cumsum(0) - 1] = 0", "pass"),
        (advantages.discounted, " + factor * later", ""),
    ],
)
def test_a_planted_bug_is_seen(
    function: Callable[..., object], old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, function, old, new)
    found, wanted = both()
    assert found != pytest.approx(wanted, abs=1e-3)
