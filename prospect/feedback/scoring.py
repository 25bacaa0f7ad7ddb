"""A judge's scores of the answers of many groups: of each by itself, or of each against the others of its prompt.

A judge whose prompt shows two answers meets every two of a group in both orders; an answer's score is then its mean
score against the others, from 0 to 1. What a hosted judge replies is in the ledger, as in comparisons; a reward model's
scores are kept there too, so a run that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from prospect.feedback.answers import Group, Sampled, identity
from prospect.judge.calls import Patience
from prospect.judge.games import Game, Judgment, outcomes, schedule
from prospect.judge.judges import Answered, Grades, estimate, grade, judge, prompt_of
from prospect.judge.ledger import Ledger
from prospect.judge.options import Asking, Orders
from prospect.judge.samples import Pair

_VERSION = 2  # raise when the same conversation comes to other tokens: its score is another then
_AT_ONCE = 4096  # answers that a reward model scores between two notes in the ledger


@dataclass(frozen=True, slots=True)
class Verdicts:
    """A score for each answer of each group, None where there is none, and who gave them."""

    scores: Sequence[Sequence[float | None]]
    judge: str
    endpoint: str | None
    answered_as: tuple[str, ...]
    prompt: str | None  # its hash
    warnings: tuple[str, ...]


def score(asking: Asking, groups: Sequence[Group], patience: Patience = Patience()) -> Verdicts:  # noqa: B008 - frozen
    """Have all answers scored.

    Raises:
        ProspectError: the judge cannot be used, or the run was stopped; what was received is in the ledger.
    """
    prompt = prompt_of(asking)
    mark = prompt.sha256 if prompt else None
    if prompt is not None and not prompt.pointwise:
        session = judge(asking, _games(groups), patience)
        scores = _against_each_other(groups, session.judgments)
        return Verdicts(scores, session.judge, session.endpoint, session.answered_as, mark, session.warnings)
    items = [_item(group, answer) for group in groups for answer in group.answers]
    rewarded = (asking.judge or "").startswith("rm:")
    grades = _kept(asking, items, patience) if rewarded else grade(asking, items, patience)
    left = iter(grades.scores)
    scores = [list(itertools.islice(left, len(group.answers))) for group in groups]
    return Verdicts(scores, grades.judge, grades.endpoint, grades.answered_as, mark, grades.warnings)


def cost(asking: Asking, groups: Sequence[Group]) -> str:
    """What scoring would take, in words; asks nobody."""
    return estimate(asking, _games(groups))


def _games(groups: Sequence[Group]) -> list[Game]:
    return schedule(_pairs(groups), Orders.both)


def _pairs(groups: Sequence[Group]) -> Iterator[Pair]:
    """Every two answers of a group; a pair's number tells which."""
    for group in groups:
        for number, (one, other) in enumerate(itertools.combinations(group.answers, 2)):
            texts = (group.conversation, one.text, other.text)
            yield Pair(group.prompt_id, number, *texts, group.dataset, group.reference, group.turns)


def _against_each_other(groups: Sequence[Group], judgments: Sequence[Judgment]) -> list[list[float | None]]:
    found = {(o.pair.prompt_id, o.pair.sample): o.score for o in outcomes(_pairs(groups), judgments)}
    scores: list[list[float | None]] = []
    for group in groups:
        own: list[list[float]] = [[] for _ in group.answers]
        for number, (one, other) in enumerate(itertools.combinations(range(len(own)), 2)):
            result = found[group.prompt_id, number]
            if result is not None:
                own[one].append(result)
                own[other].append(1.0 - result)
        scores.append([math.fsum(values) / len(values) if values else None for values in own])
    return scores


def _item(group: Group, answer: Sampled) -> Answered:
    return Answered(group.conversation, answer.said, group.reference, group.turns)


def _kept(asking: Asking, items: Sequence[Answered], patience: Patience) -> Grades:
    """A reward model's scores, those of earlier runs from the ledger."""
    model = _fingerprint(Path((asking.judge or "").removeprefix("rm:")))
    names = {item: f"score {_VERSION} {model} {_digest(_named(item))}" for item in items}
    with Ledger(asking.cache) as ledger:
        known = {item: float(said) for item, name in names.items() if (said := ledger.recall(name)) is not None}
        missing = [item for item in names if item not in known]
        grades = Grades(asking.judge or "", (), ())
        for start in range(0, len(missing), _AT_ONCE):
            some = missing[start : start + _AT_ONCE]
            grades = grade(asking, some, patience)
            new = {item: found for item, found in zip(some, grades.scores, strict=True) if found is not None}
            ledger.together([partial(ledger.remember, names[item], repr(found)) for item, found in new.items()])
            known |= new
    return replace(grades, scores=[known.get(item) for item in items], faults=[None] * len(items))


def _named(item: Answered) -> str:
    """What a stored score is kept under: other words would have every answer scored again."""
    asked = identity(item.turns) if item.turns else item.conversation
    return repr((asked, item.text if item.answer.is_plain else item.answer.row()))


def _fingerprint(folder: Path) -> str:
    """Changes with the files of a model's folder, or of a run's newest model."""
    folder = folder / "LATEST" if (folder / "LATEST").is_dir() else folder
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return _digest(repr([(str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]))[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
