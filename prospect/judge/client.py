"""One request to an OpenAI-compatible endpoint and what its reply means for the next one.

Plain HTTP: there is one layer of retries (calls.py), and it writes every attempt to the ledger. OpenAI's SDK would take
half a second to import and a third of the time of every call.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import httpx2

from prospect.errors import UserError
from prospect.judge.ledger import Fate, Reply
from prospect.judge.options import OPENAI
from prospect.judge.reply import is_completion, plain

KEY_VARIABLE = "OPENAI_API_KEY"
OWN_ID = "X-Client-Request-Id"  # OpenAI logs it, and finds a request by it whose reply was lost
_HEADERS = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
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
        named = {header: os.environ.get(variable, "").strip() for header, variable in _HEADERS.items()}
        self._headers = {"Authorization": f"Bearer {key or 'none'}"} | {n: value for n, value in named.items() if value}
        if not all(value.isascii() for value in self._headers.values()):
            raise UserError(f"{KEY_VARIABLE} holds characters that no key has")
        self._context = httpx2.create_ssl_context() if base_url.startswith("https") else False
        self._idle: list[httpx2.AsyncClient] = []

    def check_key(self) -> None:
        """To be called before the first request.

        Raises:
            UserError: this is OpenAI's own endpoint and there is no key for it.
        """
        if self.hosted and not self._has_key:
            raise UserError(f"{KEY_VARIABLE} is not set; a hosted judge needs a key (or name a server with --base-url)")

    async def close(self) -> None:
        """Close its connections."""
        for client in self._idle:
            await client.aclose()

    async def send(
        self, method: str, path: str, before: Callable[[], Awaitable[None]] | None = None, **content: Any
    ) -> httpx2.Response | Response:
        """A whole reply with status 2xx; anything else as what follows from it. Never raises for what a network or a
        server can do. ``before`` is done when the connection stands, directly before the first byte of the request.

        Raises:
            UserError: the URL is none.
        """
        client = self._idle.pop() if self._idle else self._new_client()
        sent = False
        try:
            async with asyncio.timeout(self._timeout) as limit:

                async def traced(event: str, info: Mapping[str, Any]) -> None:
                    nonlocal sent
                    if not event.endswith("send_request_headers.started") or info["request"].method == b"CONNECT":
                        return  # a tunnel through a proxy carries nothing yet
                    limit.reschedule(None)
                    if before is not None:
                        await before()
                    sent = True
                    limit.reschedule(asyncio.get_running_loop().time() + self._timeout)

                url = f"{self.base_url}{path}"
                response = await client.request(method, url, extensions={"trace": traced}, **content)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise UserError(f"--base-url {self.base_url}: {error}") from None
        except (httpx2.HTTPError, TimeoutError) as error:
            return _no_reply(error, sent)
        finally:
            self._idle.append(client)
        return response if response.is_success else _refused(response)

    def _new_client(self) -> httpx2.AsyncClient:
        """One connection: a pool looks at all its connections at every request, which costs as much as the request."""
        timeouts = httpx2.Timeout(self._timeout, connect=min(self._timeout, 15.0))
        return httpx2.AsyncClient(headers=self._headers, timeout=timeouts, verify=self._context)

    async def complete(
        self, request: Mapping[str, Any], own_id: str, before: Callable[[], Awaitable[None]]
    ) -> Response:
        """One chat completion, or a typed decision (systemone.py); ``before``: see ``send``."""
        path = "/systemone" if "questions" in request else "/chat/completions"
        response = await self.send("POST", path, before=before, json=dict(request), headers={OWN_ID: own_id})
        if isinstance(response, Response):
            return response
        body, request_id = response.content, response.headers.get("x-request-id")
        fate = Fate.answered if is_completion(body) else Fate.garbled
        note = "" if fate is Fate.answered else f"status {response.status_code} without a chat completion"
        reply = Reply(fate, response.status_code, body, request_id, note)
        return Response(reply, Next.done if fate is Fate.answered else Next.retry, wait=0.0)

    async def models(self) -> list[Mapping[str, Any]] | Response:
        """The models that the server lists; the failed response where it lists none."""
        response = await self.send("GET", "/models")
        if isinstance(response, Response):
            return response
        try:
            data = json.loads(response.content)["data"]
            return [model for model in data if isinstance(model, dict) and isinstance(model.get("id"), str)]
        except (ValueError, LookupError, TypeError):
            return []


def _no_reply(error: Exception, sent: bool) -> Response:
    note = f"{type(error).__name__}: {str(error).strip()}"[:300].rstrip(": ")
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        note = "no whole reply within --timeout" if sent else "no connection in time"
    return Response(Reply(Fate.lost if sent else Fate.refused, note=note), Next.retry)


def _refused(response: httpx2.Response) -> Response:
    status, error = response.status_code, _error(response)
    said = " ".join(plain(str(error.get("message") or response.text)).split())[:300]
    fate = Fate.lost if status in _MAYBE_BILLED else Fate.refused
    reply = Reply(fate, status, b"", response.headers.get("x-request-id"), f"status {status}: {said}")
    if status in _STOP or 300 <= status < 400 or error.get("code") in _NO_MONEY or error.get("type") in _NO_MONEY:
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
