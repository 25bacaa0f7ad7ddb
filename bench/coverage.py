"""How often compare.py's 95% interval holds the true rate, in simulation.

    python bench/coverage.py [--simulations 4000] [--prompts 200 400]

A prompt is judged in both orders by a judge that likes what is shown first. Half of the prompts are sure, whatever the
order, so that the orders hang together; some of these are ties. Three kinds of scores: ``words``, where the others have
a winner in each order (0, ½, 1), ``ties``, where any game may tie (0, ¼, …, 1), and ``weights``, where the judge gives
probabilities. Prints one JSON line for each number of prompts and kind: the coverage at each true rate. Exits with 1
where one is not within 93 to 97%.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from prospect.stats.bootstrap import bootstrap  # noqa: E402
from prospect.stats.intervals import Interval  # noqa: E402

Floats = NDArray[np.float64]
RATES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
KINDS = ("words", "ties", "weights")
_ROUNDING = 1e-9
_SCORES = np.linspace(0.0, 1.0, 5)


def law(rate: float, any_ties: bool) -> Floats:
    """How probable the scores 0, ¼, ½, ¾ and 1 of a prompt are; their mean is ``rate``."""
    tie = min(rate, 1 - rate) / 2
    win = (rate - tie / 2) / (1 - tie)
    sure = np.array([(1 - tie) * (1 - win), 0.0, tie, 0.0, (1 - tie) * win])
    if not any_ties:
        tie, win = 0.0, rate
    liking = win * (1 - win) / 2
    first, second = (np.array([(1 - tie) * (1 - p), tie, (1 - tie) * p]) for p in (win + liking, win - liking))
    return np.asarray(sure + np.convolve(first, second)) / 2


def drawn(rate: float, n: int, any_ties: bool, times: int, seed: int) -> tuple[Iterator[Floats], NDArray[np.int64]]:
    """Scores of ``n`` prompts, and how often just these were drawn: prompts are exchangeable, so counts tell all."""
    counts = np.random.default_rng(seed).multinomial(n, law(rate, any_ties), size=times)
    distinct, often = np.unique(counts, axis=0, return_counts=True)
    return (np.repeat(_SCORES, row) for row in distinct), often


def weighted(rate: float, n: int, times: int, seed: int) -> tuple[Iterator[Floats], NDArray[np.int64]]:
    """The same of a judge that gives probabilities, near to its opinion of the prompt in either order."""
    rng = np.random.default_rng(seed)

    def one() -> Floats:
        opinion = np.clip(rng.beta(rate, 1 - rate, size=n), 1e-9, 1 - 1e-9)
        return np.asarray(rng.beta(4 * opinion, 4 * (1 - opinion), size=(2, n)).mean(axis=0))

    return (one() for _ in range(times)), np.ones(times, dtype=np.int64)


def coverage(rate: float, n: int, kind: str, times: int, interval: Callable[[Floats, int], Interval]) -> float:
    """The share of simulations whose interval, made of scores and a seed, holds ``rate``."""
    seed = round(1000 * rate) + n
    scores, often = weighted(rate, n, times, seed) if kind == "weights" else drawn(rate, n, kind == "ties", times, seed)
    ends = np.array([interval(some, number) for number, some in enumerate(scores)])
    return float(often @ ((ends[:, 0] < rate + _ROUNDING) & (ends[:, 1] > rate - _ROUNDING)) / times)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--prompts", type=int, nargs="+", default=[200, 400])
    given = parser.parse_args()
    fine = True
    for n in given.prompts:
        for kind in KINDS:
            found = {str(rate): round(coverage(rate, n, kind, given.simulations, bootstrap), 4) for rate in RATES}
            print(json.dumps({"scores": kind, "prompts": n, "coverage": found}), flush=True)
            fine &= all(0.93 <= share <= 0.97 for share in found.values())
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
