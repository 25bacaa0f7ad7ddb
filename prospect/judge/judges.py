"""The judges: two that need no network, and any chat model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prospect import demo
from prospect.judge.calls import Caller, Patience
from prospect.judge.client import Endpoint
from prospect.judge.games import Game, Judgment
from prospect.judge.ledger import Ledger, Tally, request_key
from prospect.judge.options import Options
from prospect.judge.preflight import choose, forget, preflight, recall, retirement
from prospect.judge.prompt import JudgePrompt
from prospect.judge.reply import Completion, read
from prospect.judge.verdict import Verdict, read_verdict
from prospect.progress import progress

_TOKENS_A_CHARACTER = 0.2  # measured on 41,732 real judgments: 311 + 0.200 · characters
_TEMPLATE_TOKENS_A_CHARACTER = 0.23

OFFLINE: Mapping[str, Callable[[str, str], float]] = {
    "rule": demo.score,
    "longest": lambda _, answer: len(answer),
}


@dataclass(frozen=True, slots=True)
class Spent:
    """What a hosted judge took. ``asked``: requests that this process got an answer to; tokens are of all games."""

    games: int = 0
    asked: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, slots=True)
class Session:
    """Judgments and who made them. ``answered_as``: the models that the replies name."""

    judge: str
    judgments: Sequence[Judgment]
    endpoint: str | None = None
    answered_as: tuple[str, ...] = ()
    spent: Spent = Spent()
    warnings: tuple[str, ...] = ()


def judge_offline(name: str, games: Iterable[Game]) -> Session:
    """Judge by a score of each answer by itself: the higher one wins, equal ones tie."""
    score = OFFLINE[name]
    judgments = []
    for game in games:
        first, second = (score(game.pair.conversation, answer) for answer in game.shown)
        verdict = Verdict.tie if first == second else Verdict.first if first > second else Verdict.second
        judgments.append(Judgment(game, verdict, reason=f"{first} to {second}"))
    return Session(name, judgments)


def judge_hosted(options: Options, prompt: JudgePrompt, games: Sequence[Game], patience: Patience) -> Session:
    """Judge by a chat model; replies that the ledger holds are not asked for again."""
    with Ledger(options.cache) as ledger:
        return asyncio.run(_hosted(options, prompt, games, ledger, patience))


def estimate_cost(options: Options, prompt: JudgePrompt, games: Sequence[Game]) -> str:
    """What a run would take, in words; asks nobody."""
    with Ledger(options.cache) as ledger:
        requests = [_messages(prompt, ledger, game) for game in games]
        cached = asyncio.run(_cached(options, prompt, games, ledger))
    template = len(prompt.system) + len(prompt.user)
    texts = sum(len(message["content"]) for messages in requests for message in messages) - template * len(games)
    tokens = template * len(games) * _TEMPLATE_TOKENS_A_CHARACTER + texts * _TOKENS_A_CHARACTER
    known = "" if cached is None else f"; {cached} of them are in the ledger"
    return (
        f"{len(games)} games{known}; all of them: about {tokens:,.0f} tokens in, "
        f"and out at most {prompt.max_tokens} each, more where the judge reasons first"
    )


async def _cached(options: Options, prompt: JudgePrompt, games: Sequence[Game], ledger: Ledger) -> int | None:
    """How many games the ledger can answer; None where that is not known without asking."""
    caller = _caller(options, ledger, Patience())
    found = recall(caller, options.judge, prompt.max_tokens) if options.judge else None
    await caller.endpoint.close()
    if found is None or options.judge is None:
        return None
    keys = [
        request_key(options.base_url, found.request(options.judge, _messages(prompt, ledger, game), options.seed))
        for game in games
    ]
    answered = ledger.answers(set(keys))
    return sum(key in answered for key in keys)


def _caller(options: Options, ledger: Ledger, patience: Patience) -> Caller:
    endpoint = Endpoint(options.base_url, options.timeout)
    return Caller(endpoint, ledger, options.concurrency, patience, options.max_requests)


def _messages(prompt: JudgePrompt, ledger: Ledger, game: Game) -> list[dict[str, str]]:
    return prompt.messages(ledger.salt, game.pair.conversation, *game.shown)


async def _hosted(
    options: Options, prompt: JudgePrompt, games: Sequence[Game], ledger: Ledger, patience: Patience
) -> Session:
    caller = _caller(options, ledger, patience)
    try:
        model = options.judge or await choose(caller)
        found = recall(caller, model, prompt.max_tokens) or await preflight(caller, model, prompt.max_tokens)
        requests: dict[str, Mapping[str, Any]] = {}
        keys = []
        for game in games:
            request = found.request(model, _messages(prompt, ledger, game), options.seed)
            keys.append(request_key(options.base_url, request))
            requests[keys[-1]] = request
        old = ledger.answers(requests).keys()
        missing = {key: request for key, request in requests.items() if key not in old}
        failures = await _ask(caller, model, prompt, missing, len(old))
    finally:
        await caller.endpoint.close()
    answers = ledger.answers(requests)
    replies = {key: read(body) for key, body in answers.items()}
    judgments = [
        _judgment(game, prompt.labels, failures.get(key, "no reply"), key in answers, replies.get(key))
        for game, key in zip(games, keys, strict=True)
    ]
    return _session(
        options, model, retirement(model, found), judgments, replies, caller.answered, ledger.tally(requests)
    )


async def _ask(
    caller: Caller, model: str, prompt: JudgePrompt, missing: Mapping[str, Mapping[str, Any]], n_old: int
) -> dict[str, str]:
    """Ask for what is missing; why some of it has no answer."""
    if not missing:
        return {}
    caller.endpoint.check_key()
    failures: dict[str, str] | None = None
    try:
        with progress(f"judging with {model}", n_old + len(missing), "requests", n_old) as bar:
            failures = await caller.ask_all(missing, lambda: bar.advance(1))
    finally:
        if failures != {}:
            forget(caller, model, prompt.max_tokens)
    return failures


def _judgment(game: Game, labels: str, failure: str, answered: bool, reply: Completion | None) -> Judgment:
    if not answered:
        return Judgment(game, None, reason=failure, failed=True)
    if reply is None:
        return Judgment(game, None, reason="no chat completion")
    if reply.fault:
        return Judgment(game, None, reply.text, reply.fault)
    verdict = read_verdict(reply.text, labels)
    return Judgment(game, verdict, reply.text, "" if verdict else "no verdict")


def _session(
    options: Options,
    model: str,
    retires: str | None,
    judgments: Sequence[Judgment],
    replies: Mapping[str, Completion | None],
    asked: int,
    tally: Tally,
) -> Session:
    read_ones = [reply for reply in replies.values() if reply is not None]
    answered_as = tuple(sorted({reply.model for reply in read_ones if reply.model}))
    warnings = [retires] if retires else []
    if len(answered_as) > 1:
        warnings.append(f"replies come from more than one model: {', '.join(answered_as)}")
    spent = Spent(
        games=len(judgments),
        asked=asked,
        prompt_tokens=sum(reply.prompt_tokens for reply in read_ones),
        completion_tokens=sum(reply.completion_tokens for reply in read_ones),
        tally=tally,
    )
    return Session(model, judgments, options.base_url, answered_as, spent, tuple(warnings))
