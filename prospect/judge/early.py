"""``--stop-early``: judge ever more prompts, and stop as soon as it is sure who wins.

Prompts come in the order of their hash, 50, then 100, then 200 and so on; what is judged already costs nothing again.
After each step an interval that holds at every look (``stats.sequential``) is compared with one half, every game
without a verdict counted for the side that is behind. Because the number of prompts then depends on the answers, that
interval is also the one that is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from prospect.judge.calls import Patience
from prospect.judge.games import Outcome, outcomes, schedule
from prospect.judge.judges import Session, judge
from prospect.judge.options import Options, Orders
from prospect.judge.samples import Match
from prospect.stats.bootstrap import Estimate
from prospect.stats.sequential import Floats, anytime_interval

_FIRST = 50  # prompts


def judge_until_sure(
    options: Options, match: Match, orders: Orders, repeat: int, patience: Patience
) -> tuple[Match, Session]:
    """The part of the match that was judged, and what came of it."""
    prompts = list(dict.fromkeys(pair.prompt_id for pair in match.pairs))
    n = asked = 0
    usd = 0.0
    while True:
        n = min(len(prompts), max(_FIRST, 2 * n))
        chosen = set(prompts[:n])
        part = replace(match, pairs=tuple(pair for pair in match.pairs if pair.prompt_id in chosen))
        left = options.max_usd and max(options.max_usd - usd, 1e-9)
        session = judge(replace(options, max_usd=left), schedule(part.pairs, orders, repeat), patience)
        asked += session.spent.asked
        usd += session.spent.usd_now or 0.0
        if _is_sure(outcomes(part.pairs, session.judgments)) or n == len(prompts):
            return part, replace(
                session,
                spent=replace(session.spent, asked=asked, usd_now=usd if session.spent.usd_now is not None else None),
            )


def anytime(found: Estimate | None, judged: list[Outcome]) -> Estimate | None:
    """The estimate with the interval that holds at every look."""
    whole = _means((o.pair.prompt_id, o.score) for o in judged if o.score is not None)
    return found and replace(found, ci95=anytime_interval(whole), method="anytime")


def _is_sure(judged: list[Outcome]) -> bool:
    """Whether one side leads even if every game without a verdict went to the other."""
    lost, won = (_means((o.pair.prompt_id, o.bounds[side]) for o in judged) for side in (0, 1))
    return anytime_interval(lost)[0] > 0.5 or anytime_interval(won)[1] < 0.5


def _means(scores: Iterable[tuple[str, float]]) -> Floats:
    """One a prompt, in the prompts' order, which is the one in which they were judged."""
    by_prompt: dict[str, list[float]] = {}
    for prompt, score in scores:
        by_prompt.setdefault(prompt, []).append(score)
    return np.array([sum(row) / len(row) for row in by_prompt.values()])
