"""The judges: one table from a name to whoever decides, for pairs of answers (``judge``) and single ones (``grade``).

Some need nobody (``rule``, ``longest``, ``random``), some a model on this machine (``hf:DIR``, ``rm:DIR``: local.py),
the others are chat models behind an OpenAI-compatible endpoint, asked through the ledger (hosted.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from prospect import demo
from prospect.conversation import Conversation, Message, answered, spoken
from prospect.errors import UserError
from prospect.judge.calls import Patience
from prospect.judge.games import WORST_FIRST, Game, Judgment, Status
from prospect.judge.hosted import Answer, Question, Spent, Write, consult, estimate_cost
from prospect.judge.options import Asking
from prospect.judge.prompt import LABEL_SETS, Form, JudgePrompt, load_prompt
from prospect.judge.reply import refuses
from prospect.judge.rubric import decide, read_one, read_pair
from prospect.judge.samples import Pair
from prospect.judge.systemone import read_decision
from prospect.judge.verdict import Reading, read_text, read_weights

_QUICK = Patience()


@dataclass(frozen=True, slots=True)
class Session:
    """Judgments and who made them. ``answered_as``: the models that the replies name."""

    judge: str
    judgments: Sequence[Judgment]
    endpoint: str | None = None
    answered_as: tuple[str, ...] = ()
    spent: Spent = field(default_factory=Spent)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer with all that a grader sees; ``turns``: the conversation as messages, for reward models."""

    conversation: str
    answer: Message
    reference: str = ""
    turns: Conversation | None = None

    @property
    def text(self) -> str:
        """The answer as a reader sees it."""
        return spoken(self.answer)


@dataclass(frozen=True, slots=True)
class Grades:
    """A score for each answer, None where there is none (``faults``: what became of it, and why), and who gave them."""

    judge: str
    scores: Sequence[float | None]
    faults: Sequence[tuple[Status, str] | None]
    endpoint: str | None = None
    answered_as: tuple[str, ...] = ()
    spent: Spent = field(default_factory=Spent)
    warnings: tuple[str, ...] = ()


def _random(seed: int) -> Callable[[str, str], float]:
    def draw(conversation: str, answer: str) -> float:
        digest = hashlib.sha256(f"{seed}\0{conversation}\0{answer}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    return draw


OFFLINE: Mapping[str, Callable[[int], Callable[[str, str], float]]] = {
    "rule": lambda _: demo.score,
    "longest": lambda _: lambda conversation, answer: len(answer),
    "random": _random,
}
LOCAL = ("hf:", "rm:")


def prompt_of(asking: Asking) -> JudgePrompt | None:
    """The prompt that this judge reads; None for a judge that scores without words.

    Raises:
        UserError: there is no such prompt.
    """
    if asking.judge in OFFLINE or (asking.judge or "").startswith("rm:"):
        return None
    prompt = load_prompt(asking.prompt, asking.labels)
    if asking.rotate_labels and "{label_1}" not in prompt.user:
        raise UserError(f"--rotate-labels: the prompt {prompt.name} has no field {{label_1}}")
    return prompt


def judge(asking: Asking, games: Sequence[Game], patience: Patience = _QUICK) -> Session:
    """Have games judged.

    Raises:
        ProspectError: the judge cannot be used, or the run was stopped; what was received is in the ledger.
    """
    prompt = prompt_of(asking)
    if prompt is None or prompt.pointwise:
        return _by_grades(asking, prompt, games, patience)
    if (asking.judge or "").startswith("hf:"):
        from prospect.judge.local import Weigher

        return Session(asking.judge or "", Weigher(asking).judge(prompt, games))
    found = consult(asking, prompt, _write(asking, prompt, games), patience)
    judgments = [
        judged(game, prompt, labels_of(asking, prompt, game), answer)
        for game, answer in zip(games, found.answers, strict=True)
    ]
    return Session(found.model, judgments, asking.base_url, found.answered_as, found.spent, found.warnings)


def grade(asking: Asking, items: Sequence[Answered], patience: Patience = _QUICK) -> Grades:
    """Have answers scored one at a time: by a reward model, a rule, or a prompt that shows one {answer}.

    Raises:
        UserError: the judge cannot score single answers.
        ProspectError: the judge cannot be used, or the run was stopped; what was received is in the ledger.
    """
    name = asking.judge or ""
    if name in OFFLINE:
        score = OFFLINE[name](asking.seed)
        return Grades(name, [score(item.conversation, item.text) for item in items], [None] * len(items))
    if name.startswith("rm:"):
        from prospect.judge.local import reward

        return Grades(name, reward(asking, items), [None] * len(items))
    prompt = prompt_of(asking)
    if prompt is None or not prompt.pointwise or name.startswith("hf:"):
        raise UserError(f"-j {name}: single answers need a reward model (rm:DIR) or --prompt score with a chat model")
    found = consult(asking, prompt, _write_single(asking, prompt, items), patience)
    scores, faults = [], []
    for item, answer in zip(items, found.answers, strict=True):
        text = answer.reply.text if answer.reply and not answer.reply.fault else ""
        scores.append(read_one(text, prompt, (item.conversation, item.text)) if text else None)
        faults.append(None if scores[-1] is not None else _why(answer))
    return Grades(found.model, scores, faults, asking.base_url, found.answered_as, found.spent, found.warnings)


def estimate(asking: Asking, games: Sequence[Game]) -> str:
    """What judging would take, in words; asks nobody."""
    prompt = prompt_of(asking)
    if prompt is None or (asking.judge or "").startswith(LOCAL):
        return f"{len(games)} games, no requests"
    if prompt.pointwise:
        return estimate_cost(asking, prompt, _write_single(asking, prompt, _items(asking, games)), "answers")
    return estimate_cost(asking, prompt, _write(asking, prompt, games), "games")


def labels_of(asking: Asking, prompt: JudgePrompt, game: Game) -> str:
    """The two answers' names in a game: the prompt's, or a pair's own, which are the same in both orders."""
    if not asking.rotate_labels:
        return prompt.labels
    digest = hashlib.sha256(f"{asking.seed} {game.pair.prompt_id} {game.pair.sample}".encode()).digest()
    return LABEL_SETS[digest[0] % len(LABEL_SETS)]


def reading(prompt: JudgePrompt, labels: str, answer: Answer, shown: Sequence[str]) -> tuple[Reading, str]:
    """A reply's verdict, and the reason where there is none."""
    reply = answer.reply
    if reply is None:
        return Reading(None), _why(answer)[1]
    if reply.decision and reply.top:
        return read_decision(reply.top), ""
    weighs = prompt.verdict is Form.weights
    if weighs and (found := read_weights(reply.top, labels)) is not None:
        return found, ""
    if reply.fault and not (weighs and reply.fault == "truncated" and reply.text):
        return Reading(None), reply.fault
    return read_text(reply.text, labels, shown), ""


def judged(game: Game, prompt: JudgePrompt, labels: str, answer: Answer) -> Judgment:
    """What a game's reply says."""
    shown = (game.pair.conversation, *game.shown)
    text = answer.reply.text if answer.reply else ""
    common = Judgment(game, None, text, key=answer.key, labels=labels, reply=answer.reply)
    if prompt.verdict is Form.rubric:
        scores = read_pair(common.text, prompt, labels, shown) if answer.reply and not answer.reply.fault else None
        if scores is None:
            status, reason = _why(answer)
            return replace(common, status=status, reason=reason)
        return replace(common, verdict=decide(*scores, prompt.tie_within), scores=scores, how="structure")
    found, _ = reading(prompt, labels, answer, shown)
    if found.verdict is None:
        status, reason = _why(answer)
        return replace(common, status=status, reason=reason)
    return replace(
        common,
        verdict=found.verdict,
        how=str(found.how),
        strong=found.strong,
        share=found.share,
        outside=found.outside,
    )


def _why(answer: Answer) -> tuple[Status, str]:
    """What a reply without a verdict is."""
    reply = answer.reply
    if not answer.answered:
        return Status.failed, answer.failure
    if reply is None:
        return Status.failed, "no chat completion"
    if reply.fault == "truncated":
        return Status.truncated, reply.fault
    if reply.fault in ("refusal", "content filter") or refuses(reply.text):
        return Status.refused, reply.fault or "refusal"
    return Status.unparsed, reply.fault or "no verdict"


def _write(asking: Asking, prompt: JudgePrompt, games: Sequence[Game]) -> Write:
    def questions(salt: bytes) -> list[Question]:
        found = []
        for game in games:
            labels = labels_of(asking, prompt, game)
            pair = game.pair
            messages = prompt.messages(salt, pair.conversation, *game.shown, reference=pair.reference, labels=labels)
            found.append(Question(messages, labels, game.repeat))
        return found

    return questions


def _write_single(asking: Asking, prompt: JudgePrompt, items: Sequence[Answered]) -> Write:
    def questions(salt: bytes) -> list[Question]:
        return [
            Question(prompt.messages(salt, item.conversation, item.text, reference=item.reference), prompt.labels)
            for item in items
        ]

    return questions


def _items(asking: Asking, games: Sequence[Game]) -> list[Answered]:
    """Both answers of every game, once each."""
    pairs = dict.fromkeys(game.pair for game in games)
    return list(dict.fromkeys(_item(pair, answer) for pair in pairs for answer in (pair.candidate, pair.baseline)))


def _item(pair: Pair, answer: str) -> Answered:
    return Answered(pair.conversation, answered(answer), pair.reference, pair.turns)


def _by_grades(asking: Asking, prompt: JudgePrompt | None, games: Sequence[Game], patience: Patience) -> Session:
    """Judge by a score of each answer by itself: the higher one wins."""
    items = _items(asking, games)
    grades = grade(asking, items, patience)
    known = dict(zip(items, zip(grades.scores, grades.faults, strict=True), strict=True))
    margin = prompt.tie_within if prompt else 0.0
    judgments = []
    for game in games:
        (first, fault), (second, other) = (known[_item(game.pair, answer)] for answer in game.shown)
        if first is None or second is None:
            status, reason = min(filter(None, (fault, other)), key=lambda found: WORST_FIRST.index(found[0]))
            judgments.append(Judgment(game, None, reason=reason, status=status))
        else:
            verdict = decide(first, second, margin)
            judgments.append(Judgment(game, verdict, reason=f"{first:g} to {second:g}", scores=(first, second)))
    return Session(grades.judge, judgments, grades.endpoint, grades.answered_as, grades.spent, grades.warnings)
