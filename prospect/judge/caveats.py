"""What stands against a comparison's figures: one line each, for whoever is about to quote the win rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prospect.judge.judges import Session
from prospect.judge.options import Options, Orders
from prospect.judge.prompt import Form, JudgePrompt
from prospect.judge.quotes import speaks_as_judge
from prospect.judge.samples import Match
from prospect.judge.summary import Summary
from prospect.stats.intervals import sign_test

_LOPSIDED = 0.01  # p of as uneven a split of lost games between the orders


def caveats(
    options: Options, match: Match, session: Session, prompt: JudgePrompt | None, summary: Summary
) -> Iterator[str]:
    """All of them, those of the judge first."""
    yield from session.warnings
    model = match.config.get("model")
    if session.endpoint and isinstance(model, dict) and session.judge in (model.get("name_or_path"), match.exp_name):
        yield f"{session.judge} judges its own answers"
    yield from _of_order(options, summary)
    yield from _of_weights(session, prompt)
    yield from _of_length(summary.length_control)
    for side, answers in ((match.candidate, summary.candidate), (match.baseline, summary.baseline)):
        if answers.distinct_share < 0.5 and summary.total > 1:
            yield f"{side.name}: only {answers.distinct} of {len(answers.lengths)} answers differ"
    yield from _of_answers(match, prompt)
    reasons = {judgment.reason for judgment in session.judgments if judgment.failed}
    for reason in sorted(reasons)[:3]:
        yield f"failed: {reason}"


def _of_order(options: Options, summary: Summary) -> Iterator[str]:
    """A judge that likes a place, and games that are lost more often in one order than in the other."""
    if summary.position is not None:
        low, high = summary.position.gap.ci95
        if low > 0 or high < 0:
            whole = " (each pair of the win rate was judged in both orders, so it is balanced)"
            liked = "second" if low > 0 else "first"
            yield f"the judge prefers the answer shown {liked}{whole if summary.balanced else ''}"
    first, second = summary.lost.candidate_first, summary.lost.candidate_second
    if options.orders is Orders.both and sign_test(first, second) < _LOPSIDED:
        yield (
            f"games are lost in one order more than in the other: {first} with the candidate shown first, "
            f"{second} with it second"
        )
    low, high = summary.bounds
    if summary.win_rate is not None and not low <= summary.win_rate.mean <= high:
        yield (
            "the win rate of the pairs that have all their games is none that all games together could give "
            f"({low:.1%} to {high:.1%}): quote these bounds"
        )


def _of_weights(session: Session, prompt: JudgePrompt | None) -> Iterator[str]:
    """Verdicts in words where the prompt asks for the weights of its labels."""
    if prompt is None or prompt.verdict is not Form.weights:
        return
    verdicts = [judgment for judgment in session.judgments if judgment.verdict is not None]
    whole = sum(judgment.share is None for judgment in verdicts)
    if whole:
        yield (
            f"{whole} of {len(verdicts)} verdicts are 0 or 1, as the judge gave no weights of the labels "
            f"(log-probabilities): the prompt {prompt.name} is published with weighted preferences"
        )


def _of_length(control: Mapping[str, Any] | None) -> Iterator[str]:
    if control and control["rate"] is not None and control["extrapolated"]:
        yield (
            f"the length-controlled rate is extrapolated (only {control['overlap']:.1%} of the answers are longer, or "
            "only as many shorter): quote the raw one"
        )


def _of_answers(match: Match, prompt: JudgePrompt | None) -> Iterator[str]:
    """Answers that may try to speak for the judge: their verdicts do not count, but they are worth a look."""
    if prompt is None:
        return
    sides = ((match.candidate, [p.candidate for p in match.pairs]), (match.baseline, [p.baseline for p in match.pairs]))
    for side, answers in sides:
        found = [i for i, answer in enumerate(answers) if speaks_as_judge(answer, prompt.labels)]
        if found:
            where = match.pairs[found[0]].prompt_id[:8]
            yield f"{side.name}: {len(found)} answers look as if they spoke for the judge (the first on prompt {where})"
