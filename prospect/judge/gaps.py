"""What is known of the gap between two that are ranked: prompt by prompt, or by counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from prospect.judge.field import Field
from prospect.stats.ranks import Evidence

Scores = Mapping[str, float]  # by prompt


def evidence(field: Field, names: Sequence[str]) -> Callable[[int, int], Evidence | None]:
    """For two of ``names``, the first less the second: of their own games, where they met; else of those that both had
    with the same others on the same prompts, which is what ``paired`` compares; else of their counts; None where none
    of these is known."""
    met = _results(field)
    candidates, baselines = field.run_names()
    counts = {
        (name, baseline): (run.wins, run.ties, run.losses)
        for name, baseline, run in zip(candidates, baselines, field.runs, strict=True)
    }

    def of(i: int, j: int) -> Evidence | None:
        one, other = names[i], names[j]
        if direct := met.get(one, {}).get(other):
            return Evidence(np.array([score - 0.5 for score in direct.values()]))
        if gaps := _against_others(met.get(one, {}), met.get(other, {})):
            return Evidence(np.array(gaps))
        for pair, sign in (((one, other), 0.5), ((other, one), -0.5)):
            if pair in counts:
                return Evidence(np.repeat([sign, 0.0, -sign], counts[pair]))
        shared = [base for base in dict.fromkeys(baselines) if (one, base) in counts and (other, base) in counts]
        return Evidence(counts=(counts[one, shared[0]], counts[other, shared[0]])) if shared else None

    return of


def _results(field: Field) -> dict[str, dict[str, Scores]]:
    """Mean score of everybody against everybody, by prompt."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in field.rows:
        if row.score is not None:
            found.setdefault((row.candidate, row.baseline), {}).setdefault(row.prompt_id, []).append(row.score)
            found.setdefault((row.baseline, row.candidate), {}).setdefault(row.prompt_id, []).append(1 - row.score)
    met: dict[str, dict[str, Scores]] = {}
    for (one, other), by_prompt in found.items():
        means = {prompt: math.fsum(scores) / len(scores) for prompt, scores in sorted(by_prompt.items())}
        met.setdefault(one, {})[other] = means
    return met


def _against_others(ours: Mapping[str, Scores], theirs: Mapping[str, Scores]) -> list[float]:
    """Differences by prompt, of the mean over all that both have met there."""
    by_prompt: dict[str, list[tuple[float, float]]] = {}
    for other in sorted(ours.keys() & theirs.keys()):
        for prompt in ours[other].keys() & theirs[other].keys():
            by_prompt.setdefault(prompt, []).append((ours[other][prompt], theirs[other][prompt]))
    means = [[math.fsum(side) / len(side) for side in zip(*pairs, strict=True)] for pairs in by_prompt.values()]
    return [one - other for one, other in sorted(means)]  # sorted: signs that are drawn do not depend on files' order
