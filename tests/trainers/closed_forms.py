"""The catalogue's formulas once more, in plain Python on plain numbers, from the papers and not from our code.

Names: lw, ll log π of the chosen and rejected answer, rw, rl log π_ref, nw, nl their lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log

E = 0.1  # label smoothing, where a formula has it


@dataclass(frozen=True)
class Answer:
    """Token log-probabilities under both models."""

    policy: Sequence[float]
    reference: Sequence[float]

    @property
    def n(self) -> int:
        return len(self.policy)

    @property
    def logp(self) -> float:
        return sum(self.policy)

    @property
    def h(self) -> float:
        return sum(self.policy) - sum(self.reference)


def sigma(x: float) -> float:
    return 1 / (1 + exp(-x))


def nls(x: float) -> float:
    """−log σ(x)."""
    return log(1 + exp(-x))


def log_odds(mean: float) -> float:
    return log(exp(mean) / (1 - exp(mean)))


def exo(w: Answer, r: Answer, b: float) -> float:
    q = sigma(b * (w.h - r.h))
    return q * log(q / (1 - E)) + (1 - q) * log((1 - q) / E)


def discopop(w: Answer, r: Answer, b: float) -> float:
    u = b * (w.h - r.h)
    m = sigma(u / 0.05)
    return (1 - m) * nls(u) + m * exp(-u)


def ld(answer: Answer, common: int, alpha: float) -> float:
    def cut(tokens: Sequence[float]) -> float:
        return sum(tokens[:common]) + alpha * sum(tokens[common:])

    return cut(answer.policy) - cut(answer.reference)


def ld_dpo(w: Answer, r: Answer, b: float) -> float:
    common = min(w.n, r.n)
    return nls(b * (ld(w, common, 0.5) - ld(r, common, 0.5)))


def wpo(w: Answer, r: Answer, b: float) -> float:
    return min(1, exp(w.logp / w.n) * exp(r.logp / r.n)) * nls(b * (w.h - r.h))


def robust(w: Answer, r: Answer, b: float) -> float:
    d = b * (w.h - r.h)
    return ((1 - E) * nls(d) - E * nls(-d)) / (1 - 2 * E)


# One pair's loss (of several terms: the first), with beta 0.3 where there is one.
PAIRS: dict[str, Callable[[Answer, Answer, float], float]] = {
    "dpo": lambda w, r, b: nls(b * (w.h - r.h)),
    "cdpo": lambda w, r, b: (1 - E) * nls(b * (w.h - r.h)) + E * nls(-b * (w.h - r.h)),
    "robust": robust,
    "ipo": lambda w, r, b: (w.h / w.n - r.h / r.n - 1 / (2 * 0.1)) ** 2,
    "hinge": lambda w, r, b: max(0.0, 1 - b * (w.h - r.h)),
    "slic": lambda w, r, b: max(0.0, 1.0 - w.logp + r.logp) + 0.1 * -w.logp,
    "dpo-sigmoid": lambda w, r, b: -sigma(b * (w.h - r.h)),
    "orpo": lambda w, r, b: 0.1 * nls(log_odds(w.logp / w.n) - log_odds(r.logp / r.n)),
    "cpo": lambda w, r, b: (1 - E) * nls(b * (w.logp - r.logp)) + E * nls(-b * (w.logp - r.logp)),
    "simpo": lambda w, r, b: nls(b * (w.logp / w.n - r.logp / r.n) - b * 0.5),
    "exo": exo,
    "nca": lambda w, r, b: nls(b * w.h) + 0.5 * nls(-b * w.h) + 0.5 * nls(-b * r.h),
    "apo-zero": lambda w, r, b: (1 - sigma(b * w.h)) + sigma(b * r.h),
    "apo-down": lambda w, r, b: sigma(b * w.h) + (1 - sigma(b * (w.h - r.h))),
    "sppo": lambda w, r, b: (w.h - 1 / (2 * b)) ** 2 + (r.h + 1 / (2 * b)) ** 2,
    "discopop": discopop,
    "rpo": lambda w, r, b: nls(b * (w.h - r.h)),
    "dpo-norm": lambda w, r, b: nls(b * (w.h / w.n - r.h / r.n)),
    "bco-pair": lambda w, r, b: nls(b * w.h) + nls(-b * r.h),
    "ld-dpo": ld_dpo,
    "wpo": wpo,
}

# f-DPO's slopes f'(u) at u = e^h, alpha 0.5.
DIVERGENCES: dict[str, Callable[[float], float]] = {
    "reverse_kl": lambda h: log(exp(h)) + 1,
    "forward_kl": lambda h: -1 / exp(h),
    "js": lambda h: log(2 * exp(h) / (1 + exp(h))),
    "alpha": lambda h: (1 - exp(h) ** -0.5) / 0.5,
}

# The likelihood beside the preference, as a weight on the mean over chosen tokens.
LIKELIHOOD = {"orpo": 1.0, "cpo": 1.0, "rpo": 1.0}

# One answer's loss from h (kto-surprisal: from the mean log-probability), the reference point z, and which kind it is.
SINGLE: dict[str, Callable[[float, float, bool, float], float]] = {
    "kto": lambda h, z, good, b: 1.2 * (1 - sigma(b * (h - z))) if good else 0.8 * (1 - sigma(b * (z - h))),
    "kto-zero": lambda h, z, good, b: 1.2 * (1 - sigma(b * h)) if good else 0.8 * (1 - sigma(-b * h)),
    "kto-logsigmoid": lambda h, z, good, b: 1.2 * nls(b * (h - z)) if good else 0.8 * nls(b * (z - h)),
    "kto-surprisal": lambda h, z, good, b: 1.2 * (1 - sigma(b * (h - z))) if good else 0.8 * (1 - sigma(b * (z - h))),
    "bco": lambda h, z, good, b: nls(b * h - z) if good else nls(z - b * h),
}
