"""Which model judges and which parameters it takes: found out by asking, once for each endpoint and model.

Models retire and servers differ, so nothing is assumed: without ``-j`` the first candidate that the server lists and
does not retire soon is taken; a short probe tells which parameters are refused and whether the model reasons first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import date
from typing import Any

from prospect.errors import MachineError, UserError, nearest
from prospect.judge.calls import Caller, refusal
from prospect.judge.capabilities import Capabilities, Wants
from prospect.judge.client import Next, Response
from prospect.judge.ledger import Claim, Fate, request_key
from prospect.judge.own import NOTHING, Own
from prospect.judge.reply import read

# As of 2026-11: what OpenAI's deprecation page names in place of gpt-4.1 and gpt-4o, gpt-5-mini, gpt-5-nano.
CANDIDATES = ("gpt-6-luna", "gpt-5.6-terra", "gpt-5.6-luna")
_SOON_DAYS = 60
_THINKING_TOKENS = 4096  # a judge that reasons needs room before its verdict
_PROBE = [{"role": "user", "content": 'Reply with the single word "ready".'}]
_SYSTEM_PROBE = [{"role": "system", "content": "You answer briefly."}, *_PROBE]
_PROBE_SCHEMA = {
    "type": "object",
    "properties": {"ready": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["ready"],
    "additionalProperties": False,
}
_TOO_SHORT = re.compile(
    r"could not finish|output limit (?:was )?reached|too (?:small|low)|minimum value", re.IGNORECASE
)
_HINTS = {  # of failed connections
    "WRONG_VERSION_NUMBER": "; this port may speak plain http: did you mean http://?",
    "CERTIFICATE_VERIFY_FAILED": "; SSL_CERT_FILE names the certificates to trust",
}
_MANY_LOGPROBS = 20
_MAX_PROBES = 10
_LIST_TRIES = 3


def recall(caller: Caller, model: str, wants: Wants, own: Own = NOTHING) -> Capabilities | None:
    """What an earlier preflight found, where it was made with the same ledger."""
    found = caller.ledger.recall(_fact(caller, model, wants, own))
    return Capabilities(**json.loads(found)) if found else None


def forget(caller: Caller, model: str, wants: Wants, own: Own = NOTHING) -> None:
    """Have the next run probe anew: requests failed, so the server may have changed."""
    caller.ledger.forget(_fact(caller, model, wants, own))


async def choose(caller: Caller) -> str:
    """A judge for those who named none.

    Raises:
        UserError: the endpoint serves none of the candidates, nor one model only.
    """
    listed = await _listed(caller)
    served = {str(model["id"]): model.get("shutdown_date") for model in listed or ()}
    for name in CANDIDATES:
        if name in served and _days_left(served[name]) > _SOON_DAYS:
            return name
    if len(served) == 1:
        return next(iter(served))
    some = ", ".join(sorted(served)[:8]) or "nothing that it lists"
    raise UserError(
        f"no judge: {caller.endpoint.base_url} has none of {', '.join(CANDIDATES)}; name one with -j (it serves {some})"
    )


async def preflight(caller: Caller, model: str, wants: Wants, own: Own = NOTHING) -> Capabilities:
    """Probe a model's parameters and remember them.

    Raises:
        UserError: the model is unknown, retired, or refuses even the plainest request.
        MachineError: the endpoint does not answer.
    """
    listed = await _listed(caller)
    served = {str(entry["id"]): entry.get("shutdown_date") for entry in listed or ()}
    shutdown = served.get(model)
    if _days_left(shutdown) < 0:
        raise UserError(f"-j {model} was shut down on {shutdown}; it serves {', '.join(sorted(served)[:8])}")
    first = Capabilities(
        "max_completion_tokens" if caller.endpoint.hosted else "max_tokens",
        wants.limit,
        logprobs=_MANY_LOGPROBS if wants.logprobs else 0,
        json_schema=wants.schema and not wants.logprobs,
        shutdown_date=shutdown,
    )
    if caller.endpoint.hosted and not wants.logprobs:  # its models may reason or not from one request to the next; room
        first = replace(first, limit=max(wants.limit, _THINKING_TOKENS))  # alone costs nothing
    found = await _probed(caller, model, first, wants, served, own)
    caller.ledger.remember(_fact(caller, model, wants, own), json.dumps(asdict(found)))
    return found


def retirement(model: str, found: Capabilities) -> str | None:
    """A warning where the judge will soon be gone."""
    days = _days_left(found.shutdown_date)
    return f"{model} is shut down on {found.shutdown_date}, in {days:.0f} days" if days <= _SOON_DAYS else None


async def _probed(
    caller: Caller, model: str, trial: Capabilities, wants: Wants, served: Mapping[str, Any], own: Own
) -> Capabilities:
    """Leave out what is refused or ignored, one parameter a probe; give a model that reasons room."""
    refused: set[Capabilities] = set()
    for _ in range(_MAX_PROBES):
        words = _SYSTEM_PROBE if wants.system else _PROBE
        answer = await _probe(caller, trial.request(model, words, 0, schema=_PROBE_SCHEMA, own=own))
        if isinstance(answer, bytes):
            better = _improved(trial, wants, answer)
            if better == trial:
                return trial
            trial = better
            continue
        if answer.reply.status == 404 and answer.next is Next.stop_at_first:
            hint = nearest(model, served) or (f"; it serves {', '.join(sorted(served)[:8])}" if served else "")
            raise UserError(f"{caller.endpoint.base_url} does not serve -j {model}{hint} ({answer.reply.note})")
        if answer.next in (Next.stop, Next.stop_at_first):
            raise refusal(caller.endpoint, model, answer.reply)
        refused.add(trial)
        if _TOO_SHORT.search(answer.reply.note):  # a model that reasons, and had no room to
            trial = _roomy(trial, wants)
            continue
        fewer = trial.without(f"{(answer.error or {}).get('param')} {answer.reply.note}", wants)
        if fewer is None or fewer in refused:
            raise UserError(f"{caller.endpoint.base_url} refuses -j {model}: {answer.reply.note}")
        trial = fewer
    raise UserError(f"{caller.endpoint.base_url} refuses -j {model} with every set of parameters that was tried")


def _improved(trial: Capabilities, wants: Wants, answer: bytes) -> Capabilities:
    """What a probe's reply teaches: the judge reasons, or it ignored what it was asked for."""
    reply = read(answer)
    assert reply is not None
    if reply.reasons and trial.limit < _THINKING_TOKENS:
        return _roomy(trial, wants)
    if trial.logprobs and (reply.reasons or reply.top is None):
        return trial.without_weights(wants)
    if trial.json_schema and not _conforms(reply.text):
        return replace(trial, json_schema=False)
    return trial


def _roomy(trial: Capabilities, wants: Wants) -> Capabilities:
    """For a judge that reasons: its first token is no verdict, and the verdict comes late."""
    return replace(trial.without_weights(wants), limit=max(trial.limit, _THINKING_TOKENS), low_effort=True)


def _conforms(text: str) -> bool:
    """Whether a probe's text is what its schema allows: its words alone ask for no JSON."""
    try:
        content = json.loads(text)
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("ready") in ("yes", "no")


async def _probe(caller: Caller, request: dict[str, Any]) -> bytes | Response:
    """One short request through the ledger, as it may cost something; its raw answer, or the refusal."""
    key = request_key(caller.endpoint.base_url, request)
    claim = caller.ledger.claim(key, request)
    while claim is Claim.busy:  # another process is at the same probe
        await caller.pause()
        claim = caller.ledger.claim(key, request)
    if claim is Claim.answered:
        return caller.ledger.answers((key,))[key]
    try:
        response = await caller.attempt(key, request)
    finally:
        caller.ledger.release(key)
    caller.check()
    if response.reply.fate is Fate.answered:
        return response.reply.body
    if response.reply.fate is Fate.garbled:
        note = response.reply.note
        if "a page of HTML" in note:
            raise UserError(f"--base-url {caller.endpoint.base_url}: no API here: {note}")
        raise MachineError(f"{caller.endpoint.base_url} does not answer as a chat model: {note}")
    if response.next is Next.retry:
        raise MachineError(f"{caller.endpoint.base_url} does not answer: {response.reply.note}")
    return response


async def _listed(caller: Caller) -> list[Mapping[str, Any]] | None:
    """The models that the server lists; None where it has no list.

    Raises:
        UserError: it refuses the key.
        MachineError: it cannot be reached.
    """
    caller.endpoint.check_key()
    found = await caller.endpoint.models()
    for attempt in range(_LIST_TRIES - 1):
        if isinstance(found, list) or found.next is not Next.retry:
            break
        await caller.pause(caller.patience.wait(attempt))
        found = await caller.endpoint.models()
    if isinstance(found, list):
        return found
    if found.reply.status is None:
        hint = next((hint for sign, hint in _HINTS.items() if sign in found.reply.note), "")
        raise MachineError(f"{caller.endpoint.base_url} cannot be reached: {found.reply.note}{hint}")
    if "HTTPS port" in found.reply.note:
        raise UserError(f"--base-url {caller.endpoint.base_url}: this port speaks https; did you mean https://?")
    if found.next is Next.stop:
        raise refusal(caller.endpoint, None, found.reply)
    await _look_elsewhere(caller)
    return None


async def _look_elsewhere(caller: Caller) -> None:
    """A server may do without a list of models, and a key may not see it. But where another address close to this one
    has a list, that one was meant.

    Raises:
        UserError: says which.
    """
    for other in caller.endpoint.others():
        if isinstance(await caller.endpoint.models(at=other), list):
            raise UserError(f"--base-url {caller.endpoint.base_url}: no API here; did you mean {other.public}?")


def _days_left(shutdown: Any) -> float:
    try:
        return float((date.fromisoformat(str(shutdown)[:10]) - date.today()).days)
    except ValueError:
        return float("inf")


def _fact(caller: Caller, model: str, wants: Wants, own: Own) -> str:
    """Under what a preflight's finding is kept. A system role is what nearly every prompt wants."""
    wanted = {name: value for name, value in asdict(wants).items() if name != "system"}
    more = "" if wants.system else " no system"
    return f"capabilities {caller.endpoint.base_url} {model} {json.dumps(wanted)}{more}{own.mark}"
