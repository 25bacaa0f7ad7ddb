"""One request to an OpenAI-compatible endpoint and what its reply means for the next one.

The SDK's own retries are off: there is one layer of retries (calls.py), and it writes every attempt to the ledger.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import httpx2
import openai

from prospect.errors import UserError
from prospect.judge.ledger import Fate, Reply
from prospect.judge.options import OPENAI
from prospect.judge.reply import is_completion, plain

KEY_VARIABLE = "OPENAI_API_KEY"
_LONGEST_WAIT = 120.0
_RETRY = {408, 409, 429}  # and every status from 500 on
_STOP = {401, 403, 404}
_MAYBE_BILLED = {408, 504, 524}  # the server or a proxy gave up on a reply that was being written
_NO_MONEY = {"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"}


class Next(StrEnum):
    """What to do after a reply."""

    done = "done"
    retry = "retry"
    give_up = "give up"  # this request can never succeed
    stop = "stop"  # nor can any other


@dataclass(frozen=True, slots=True)
class Response:
    """A reply for the ledger, what follows from it, and the seconds that the server asks to wait."""

    reply: Reply
    next: Next
    throttled: bool = False
    wait: float | None = None
    error: Mapping[str, Any] | None = None


class Endpoint:
    """An OpenAI-compatible server."""

    def __init__(self, base_url: str, timeout: float) -> None:
        key = os.environ.get(KEY_VARIABLE, "").strip()
        self.base_url = base_url
        self.hosted = base_url == OPENAI
        self._has_key = bool(key)
        self._timeout = timeout
        limits = httpx2.Timeout(timeout, connect=min(timeout, 15.0))
        self._client = openai.AsyncOpenAI(api_key=key or "none", base_url=base_url, max_retries=0, timeout=limits)

    def check_key(self) -> None:
        """To be called before the first request.

        Raises:
            UserError: this is OpenAI's own endpoint and there is no key for it.
        """
        if self.hosted and not self._has_key:
            raise UserError(f"{KEY_VARIABLE} is not set; a hosted judge needs a key (or name a server with --base-url)")

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def complete(self, request: Mapping[str, Any]) -> Response:
        """One chat completion. Never raises for what a network or a server can do."""
        try:
            call = self._client.post("/chat/completions", cast_to=httpx2.Response, body=dict(request))
            response = await asyncio.wait_for(call, self._timeout)
        except openai.APIStatusError as error:
            return _refused(error.response)
        except (openai.APIConnectionError, TimeoutError) as error:
            return _no_reply(error)
        body, request_id = response.content, response.headers.get("x-request-id")
        fate = Fate.answered if is_completion(body) else Fate.garbled
        note = "" if fate is Fate.answered else f"status {response.status_code} without a chat completion"
        reply = Reply(fate, response.status_code, body, request_id, note)
        return Response(reply, Next.done if fate is Fate.answered else Next.retry, wait=0.0)

    async def models(self) -> list[Mapping[str, Any]] | Response:
        """The models that the server lists; the failed response where it lists none."""
        try:
            response = await asyncio.wait_for(self._client.get("/models", cast_to=httpx2.Response), self._timeout)
            data = json.loads(response.content)["data"]
            return [model for model in data if isinstance(model, dict) and isinstance(model.get("id"), str)]
        except openai.APIStatusError as error:
            return _refused(error.response)
        except (openai.APIConnectionError, TimeoutError) as error:
            return _no_reply(error)
        except (ValueError, LookupError, TypeError):
            return []


def _no_reply(error: Exception) -> Response:
    if isinstance(error, TimeoutError):
        return Response(Reply(Fate.lost, note="no whole reply within --timeout"), Next.retry)
    cause = error.__cause__ or error
    unsent = isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
    fate = Fate.refused if unsent else Fate.lost
    words = str(cause).strip() or str(error).strip()
    return Response(Reply(fate, note=f"{type(cause).__name__}: {words}"[:300].rstrip(": ")), Next.retry)


def _refused(response: httpx2.Response) -> Response:
    status, error = response.status_code, _error(response)
    said = " ".join(plain(str(error.get("message") or response.text)).split())[:300]
    fate = Fate.lost if status in _MAYBE_BILLED else Fate.refused
    reply = Reply(fate, status, b"", response.headers.get("x-request-id"), f"status {status}: {said}")
    if status in _STOP or error.get("code") in _NO_MONEY or error.get("type") in _NO_MONEY:
        return Response(reply, Next.stop, error=error)
    if status in _RETRY or status >= 500:
        return Response(reply, Next.retry, status == 429, _retry_after(response.headers), error)
    return Response(reply, Next.give_up, error=error)


def _error(response: httpx2.Response) -> Mapping[str, Any]:
    """The ``error`` object of a refusal; servers differ in where they put it."""
    try:
        content = response.json()
    except ValueError:
        return {}
    content = content.get("error", content) if isinstance(content, dict) else {"message": content}
    return content if isinstance(content, dict) else {"message": content}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from a number or a date, two minutes at most; None where nothing readable is said."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        return min(max(seconds, 0.0), _LONGEST_WAIT) if seconds == seconds else None
    try:
        seconds = (parsedate_to_datetime(headers["retry-after"]) - datetime.now(UTC)).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), _LONGEST_WAIT)
