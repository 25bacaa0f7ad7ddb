"""Asking a chat model behind an OpenAI-compatible endpoint: from questions to raw replies, through the ledger.

Replies that the ledger holds are not asked for again; what the rest will cost is said before anything is sent.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prospect.errors import UserError
from prospect.judge import systemone
from prospect.judge.batchbook import BatchBook
from prospect.judge.batches import ask_batch
from prospect.judge.calls import Caller, Interrupted, Patience, withheld
from prospect.judge.capabilities import Capabilities, Wants
from prospect.judge.client import Endpoint
from prospect.judge.cost import Meter, Price, estimator, no_price, price_of
from prospect.judge.ledger import Ledger, Tally, request_key
from prospect.judge.options import Asking
from prospect.judge.preflight import CANDIDATES, choose, forget, preflight, recall, retirement
from prospect.judge.prompt import Form, JudgePrompt
from prospect.judge.reply import Completion, Usage, read, usage
from prospect.judge.streams import content_of
from prospect.progress import progress

_DECIDES = Capabilities("", 0)  # systemone takes no parameters
_ASK_FROM_USD = 1.0  # a person at a terminal is asked before a run that costs more


@dataclass(frozen=True, slots=True)
class Question:
    """Chat messages that offer ``labels``; ``repeat`` counts from 0 where the same is asked several times."""

    messages: Sequence[Mapping[str, str]]
    labels: str
    repeat: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What a hosted judge took. ``asked``: requests that this process got an answer to; tokens and ``usd`` (None: no
    price is known) are of all replies, ``usd_now`` of this run's."""

    games: int = 0
    asked: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    usd_now: float | None = None
    prices_of: str = ""
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the ledger has for a question: ``reply`` None where it has nothing (``failure`` says why) or nothing that is
    a chat completion."""

    key: str
    reply: Completion | None
    answered: bool
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Consultation:
    """Answers in the questions' order and who gave them. ``answered_as``: the models that the replies name."""

    model: str
    answers: Sequence[Answer]
    answered_as: tuple[str, ...]
    spent: Spent
    warnings: tuple[str, ...]


Write = Callable[[bytes], Sequence[Question]]  # from the ledger's salt to the questions


def consult(asking: Asking, prompt: JudgePrompt, write: Write, patience: Patience) -> Consultation:
    """Ask the judge whatever the ledger does not hold already.

    Raises:
        ProspectError: the judge cannot be used, or the run was stopped. What was received is in the ledger.
    """
    with Ledger(asking.cache) as ledger:
        return asyncio.run(_consult(asking, prompt, write(ledger.salt), ledger, patience))


def estimate_cost(asking: Asking, prompt: JudgePrompt, write: Write, what: str) -> str:
    """What a run would take, in words; asks nobody. ``what``: the questions' name."""
    with Ledger(asking.cache) as ledger:
        questions = write(ledger.salt)
        model = asking.judge or CANDIDATES[0]
        caller = _caller(asking, ledger, Patience())
        found = recall(caller, model, Wants.of(prompt), asking.own) if asking.judge else None
        asyncio.run(caller.endpoint.close())
        old = 0
        missing = list(questions)
        if found is not None:
            keys, requests = _requests(asking, prompt, model, found, questions)
            answers = ledger.answers(requests)
            old = sum(key in answers for key in keys)
            missing = [q for key, q in zip(keys, questions, strict=True) if key not in answers]
        estimate = estimator(prompt, asking.token_ratio, ledger.recent(model), bool(found and found.low_effort))
    price = price_of(asking, model)
    tokens_in = sum(estimate.tokens_in(question.messages) for question in missing)
    known = f"; {old} of them are in the ledger, the rest" if found else "; all of them"
    usd = sum(estimate.usd(question.messages, price) for question in missing) if price else None
    return (
        f"{len(questions)} {what}{known}: about {tokens_in:,.0f} tokens in and {estimate.out * len(missing):,.0f} out, "
        f"{_dollars(usd, price, model)}"
    )


def _dollars(usd: float | None, price: Price | None, model: str) -> str:
    if usd is None or price is None:
        return f"no price known for {model} (--price)"
    return f"about ${usd:.4g} with {model}" + (f" at the prices of {price.date}" if price.date else "")


async def _consult(
    asking: Asking, prompt: JudgePrompt, questions: Sequence[Question], ledger: Ledger, patience: Patience
) -> Consultation:
    caller = _caller(asking, ledger, patience)
    wants = Wants.of(prompt)
    if caller.endpoint.withholds_key:
        print(f"note: {withheld(caller.endpoint)}", file=sys.stderr)
    try:
        model = asking.judge or await choose(caller)
        found = _DECIDES if model.startswith(systemone.PREFIX) else recall(caller, model, wants, asking.own)
        found = found or await preflight(caller, model, wants, asking.own)
        keys, requests = _requests(asking, prompt, model, found, questions)
        old = ledger.answers(requests).keys()
        caller.accepted = bool(old)
        missing = {key: request for key, request in requests.items() if key not in old}
        _budget(caller, asking, prompt, model, found, missing)
        failures = await _ask(caller, asking, model, missing, len(requests) - len(missing))
        if failures:
            forget(caller, model, wants, asking.own)
    except Exception:
        if asking.judge:
            forget(caller, asking.judge, wants, asking.own)
        raise
    finally:
        await caller.endpoint.close()
    bodies = ledger.answers(requests)
    answers = [
        Answer(key, read(bodies[key]) if key in bodies else None, key in bodies, failures.get(key, "no reply"))
        for key in keys
    ]
    warning = retirement(model, found)
    garbled = [usage(content) for body in ledger.garbled(requests) if (content := content_of(body)) is not None]
    spent = _spent(caller, answers, garbled, ledger.tally(requests))
    return _told(model, answers, spent, [warning] if warning else [])


def _requests(
    asking: Asking, prompt: JudgePrompt, model: str, found: Capabilities, questions: Sequence[Question]
) -> tuple[list[str], dict[str, Mapping[str, Any]]]:
    """Every question's key, and the bodies to be sent by key."""
    drawn = prompt.verdict is Form.weights and not found.logprobs  # a label drawn at random says nothing
    temperature = 0.0 if drawn else prompt.temperature
    keys: list[str] = []
    requests: dict[str, Mapping[str, Any]] = {}
    for question in questions:
        schema = prompt.schema(question.labels) if found.json_schema else None
        body = found.request(model, question.messages, asking.seed + question.repeat, temperature, schema, asking.own)
        if found is _DECIDES:
            body = systemone.request(model.removeprefix(systemone.PREFIX), question.messages)
        keys.append(request_key(asking.base_url, body, question.repeat))
        requests[keys[-1]] = body
    return keys, requests


def _budget(
    caller: Caller,
    asking: Asking,
    prompt: JudgePrompt,
    model: str,
    found: Capabilities,
    missing: Mapping[str, Mapping[str, Any]],
) -> None:
    """Set the meter, and ask a person at a terminal before an expensive run."""
    price = price_of(asking, model)
    if price is None and asking.max_usd is not None:
        raise no_price(asking, model)
    estimate = estimator(prompt, asking.token_ratio, caller.ledger.recent(model), found.low_effort)
    expected = {key: estimate.usd(body.get("messages", []), price) for key, body in missing.items()} if price else {}
    caller.meter = Meter(price, expected, asking.max_usd)
    total = caller.meter.total
    if total >= _ASK_FROM_USD and not asking.yes and sys.stdin.isatty() and sys.stdout.isatty():
        reply = input(f"{len(missing)} requests, {_dollars(total, price, model)}: go on? [y/N] ")
        if not reply.strip().lower().startswith("y"):
            raise Interrupted("nothing was asked; -y goes on without a question")


async def _ask(
    caller: Caller, asking: Asking, model: str, missing: Mapping[str, Mapping[str, Any]], n_old: int
) -> dict[str, str]:
    """Ask for what is missing; why some of it has no answer."""
    if not missing:
        return {}
    caller.endpoint.check_key()
    with progress(f"judging with {model}", n_old + len(missing), "requests", n_old) as bar:
        if asking.batch:
            return await ask_batch(caller, missing, bar)
        pending = BatchBook(caller.ledger, asking.base_url).pending(missing)
        if pending:
            raise UserError(f"{pending} of these requests are in a batch under way; --batch waits for it")
        return await caller.ask_all(missing, lambda: bar.advance(1, caller.meter.note()))


def _caller(asking: Asking, ledger: Ledger, patience: Patience) -> Caller:
    endpoint = Endpoint(asking.address or asking.base_url, asking.timeout, asking.send_key)
    return Caller(endpoint, ledger, asking.concurrency, patience, asking.max_requests)


def _spent(caller: Caller, answers: Sequence[Answer], garbled: Sequence[Usage], tally: Tally) -> Spent:
    """All that was counted, of replies that are no answer, too."""
    used = [answer.reply.usage for answer in answers if answer.reply is not None] + [*garbled]
    price = caller.meter.price
    return Spent(
        games=len(answers),
        asked=caller.answered,
        prompt_tokens=sum(one.prompt for one in used),
        cached_tokens=sum(one.cached for one in used),
        completion_tokens=sum(one.completion for one in used),
        usd=sum(map(price.of, used)) if price else None,
        usd_now=caller.meter.spent if price else None,
        prices_of=price.date if price else "",
        tally=tally,
    )


def _told(model: str, answers: Sequence[Answer], spent: Spent, warnings: Sequence[str]) -> Consultation:
    """With a warning where several models have answered."""
    names = {answer.reply.model for answer in answers if answer.reply is not None and answer.reply.model}
    answered_as = tuple(sorted(names))
    if len(answered_as) > 1:
        warnings = [*warnings, f"replies come from more than one model: {', '.join(answered_as)}"]
    return Consultation(model, answers, answered_as, spent, tuple(warnings))
