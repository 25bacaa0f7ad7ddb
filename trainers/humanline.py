"""Humanline: token log-ratios clamped to what a human would notice. Human-aware losses, arXiv 2509.24207.

An option of any loss with a reference model. Offline data then act more like samples of the policy: where policy and
reference differ by more than the bounds, a token's ratio counts as the bound and has no gradient. Meant for a reference
that follows the policy (``sync_reference_every``), so stored log-probabilities of a fixed one are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from prospect.batch import Logps
from prospect.config.schema import LossConfig


@dataclass(slots=True)
class HumanlineConfig(LossConfig):
    """``humanline`` switches it on; the bounds are log ε_P and log ε_R, in nats."""

    humanline: bool = False
    log_epsilon_p: float = -1.0
    log_epsilon_r: float = 1.5


def humanline(policy: Logps, reference: Logps, config: HumanlineConfig) -> Logps:
    """The policy's log-probabilities with each token's log π − log π_ref within the bounds; unchanged where off."""
    if not config.humanline:
        return policy
    ratios = (policy.tokens - reference.tokens).clamp(config.log_epsilon_p, config.log_epsilon_r)
    return replace(policy, tokens=reference.tokens + ratios)
