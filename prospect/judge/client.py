"""One request to an OpenAI-compatible endpoint and what its reply means for the next one.

Plain HTTP: there is one layer of retries (calls.py), and it writes every attempt to the ledger. OpenAI's SDK would take
half a second to import and a third of the time of every call.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import httpx2

from prospect.errors import UserError
from prospect.judge.address import Address, address_of
from prospect.judge.ledger import Fate, Reply
from prospect.judge.options import OPENAI
from prospect.judge.reply import error_in, instead, is_completion, plain

KEY_VARIABLE = "OPENAI_API_KEY"
OWN_ID = "X-Client-Request-Id"  # OpenAI logs it, and finds a request by it whose reply was lost
_HEADERS = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
_LONGEST_WAIT = 120.0
_RETRY = {408, 409, 425, 429}  # and every status from 500 on
_STOP = {401, 402}  # a key that is none, no money
_STOP_AT_FIRST = {
    403,
    404,
    405,
    410,
}  # and redirects: of a key, a model or an address, or of this one request's content
_HOPELESS = re.compile(
    r"roles? (?:is )?not supported|roles must alternate|only user and assistant roles", re.IGNORECASE
)
_MAYBE_BILLED = {408, 504, 524}  # the server or a proxy gave up on a reply that was being written
_STATUSES: Mapping[str, int] = {  # of errors that are named instead of numbered
    **dict.fromkeys(("rate_limit_exceeded", "rate_limit_error", "too_many_requests"), 429),
    **dict.fromkeys(("invalid_request_error", "context_length_exceeded", "content_filter"), 400),
    **dict.fromkeys(("authentication_error", "invalid_api_key"), 401),
    **dict.fromkeys(("permission_error", "permission_denied"), 403),
    **dict.fromkeys(("not_found_error", "model_not_found"), 404),
}
_NO_MONEY = {"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"}


class Next(StrEnum):
    """What to do after a reply."""

    done = "done"
    retry = "retry"
    give_up = "give up"  # this request can never succeed
    stop_at_first = "stop at first"  # nor can any other, unless one has been accepted
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
    """An OpenAI-compatible server. ``base_url`` is what may be written of its address. ``withholds_key``: there is a
    key, which would be sent where anybody can read it; it is not, unless ``send_key``.

    Raises:
        UserError: the address is none, or the key, or a setting of the environment for connections.
    """

    def __init__(self, base_url: str, timeout: float, send_key: bool = False) -> None:
        key = os.environ.get(KEY_VARIABLE, "").strip()
        self._address = address_of(base_url)
        self.base_url = self._address.public
        self.hosted = self.base_url == OPENAI
        self.withholds_key = bool(key) and self._address.exposes and not send_key
        self._has_key = bool(key)
        self._timeout = timeout
        named = {header: os.environ.get(variable, "").strip() for header, variable in _HEADERS.items()}
        self._headers = {"Authorization": f"Bearer {key or 'none'}"} | {n: value for n, value in named.items() if value}
        if not all(value.isascii() for value in self._headers.values()):
            raise UserError(f"{KEY_VARIABLE} holds characters that no key has")
        if self.withholds_key:
            self._headers = {"Authorization": "Bearer none"}
        self._secrets = (*self._address.secrets, *((key,) if key else ()))
        self._context = _certificates() if self.base_url.startswith("https") else False
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
        self,
        method: str,
        path: str,
        before: Callable[[], Awaitable[None]] | None = None,
        at: Address | None = None,
        **content: Any,
    ) -> httpx2.Response | Response:
        """A whole reply with status 2xx; anything else as what follows from it. Never raises for what a network or a
        server can do. ``before`` is done when the connection stands, directly before the first byte of the request;
        ``at``: another address than the endpoint's own.

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

                url = (at or self._address).url(path)
                response = await client.request(method, url, extensions={"trace": traced}, **content)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise UserError(f"--base-url {self.base_url}: {self._hidden(str(error))}") from None
        except (httpx2.HTTPError, TimeoutError) as error:
            return self._told(_no_reply(error, sent))
        finally:
            self._idle.append(client)
        return response if response.is_success else self._told(_refused(response))

    def _new_client(self) -> httpx2.AsyncClient:
        """One connection: a pool looks at all its connections at every request, which costs as much as the request."""
        timeouts = httpx2.Timeout(self._timeout, connect=min(self._timeout, 15.0))
        try:
            return httpx2.AsyncClient(headers=self._headers, timeout=timeouts, verify=self._context)
        except ImportError:
            raise UserError(f"{_proxies()}: a SOCKS proxy needs the package socksio (pip install socksio)") from None
        except (ValueError, httpx2.InvalidURL) as error:
            raise UserError(f"{_proxies()}: no address of a proxy: {error}") from None

    def _told(self, response: Response) -> Response:
        """The response without credentials that the server has repeated."""
        return replace(response, reply=replace(response.reply, note=self._hidden(response.reply.note)))

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def complete(
        self, request: Mapping[str, Any], own_id: str, before: Callable[[], Awaitable[None]]
    ) -> Response:
        """One chat completion, or a typed decision (systemone.py); ``before``: see ``send``."""
        path = "/systemone" if "questions" in request else "/chat/completions"
        response = await self.send("POST", path, before=before, json=dict(request), headers={OWN_ID: own_id})
        if isinstance(response, Response):
            return response
        return self._told(accepted(response))

    def others(self) -> tuple[Address, ...]:
        """Addresses that may have been meant, where this one has no API."""
        return self._address.others()

    async def models(self, at: Address | None = None) -> list[Mapping[str, Any]] | Response:
        """The models that the server lists; the failed response where it lists none."""
        response = await self.send("GET", "/models", at=at)
        if isinstance(response, Response):
            return response
        try:
            data = json.loads(response.content)["data"]
            return [model for model in data if isinstance(model, dict) and isinstance(model.get("id"), str)]
        except (ValueError, LookupError, TypeError):
            note = f"a list of models was expected, found {instead(response.content)}"
            return self._told(Response(Reply(Fate.garbled, response.status_code, note=note), Next.give_up))


def accepted(response: httpx2.Response) -> Response:
    """What a status 2xx holds: a chat completion; an error, as routers send it, with its own status; or neither, which
    may have been billed."""
    body, request_id = response.content, response.headers.get("x-request-id")
    if is_completion(body):
        return Response(Reply(Fate.answered, response.status_code, body, request_id), Next.done)
    error = error_in(body)
    if error is not None:
        return _after(_status_of(error), error, response.headers, "an error in a reply with status 200: ")
    note = f"status {response.status_code} without a chat completion: {instead(body)}"
    return Response(Reply(Fate.garbled, response.status_code, body, request_id, note), Next.retry, wait=0.0)


def _no_reply(error: Exception, sent: bool) -> Response:
    note = f"{type(error).__name__}: {str(error).strip()}"[:300].rstrip(": ")
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        note = "no whole reply within --timeout" if sent else "no connection in time"
    return Response(Reply(Fate.lost if sent else Fate.refused, note=note), Next.retry)


def _refused(response: httpx2.Response) -> Response:
    error = _error(response)
    if not error.get("message"):
        error = {**error, "message": instead(response.content)}
    return _after(response.status_code, error, response.headers)


def _after(status: int, error: Mapping[str, Any], headers: Mapping[str, str], where: str = "") -> Response:
    """What follows from a status and the error that came with it."""
    said = " ".join(plain(str(error["message"])).split())[:300]
    fate = Fate.lost if status in _MAYBE_BILLED else Fate.refused
    reply = Reply(fate, status, b"", headers.get("x-request-id"), f"{where}status {status}: {said}")
    if status in _STOP or error.get("code") in _NO_MONEY or error.get("type") in _NO_MONEY:
        return Response(reply, Next.stop, error=error)
    if status in _STOP_AT_FIRST or 300 <= status < 400:
        return Response(reply, Next.stop_at_first, error=error)
    if (status in _RETRY or status >= 500) and not _HOPELESS.search(said):
        return Response(reply, Next.retry, status == 429, _retry_after(headers), error)
    return Response(reply, Next.give_up, error=error)


def _status_of(error: Mapping[str, Any]) -> int:
    """The status that an error in a reply with status 200 stands for; one that says nothing is worth another try."""
    for name in ("code", "status", "type"):
        value = error.get(name)
        if isinstance(value, int | str) and str(value).isdecimal() and 400 <= int(value) < 600:
            return int(value)
        if isinstance(value, str) and value.lower() in _STATUSES:
            return _STATUSES[value.lower()]
    return 502


def _certificates() -> ssl.SSLContext:
    """For https.

    Raises:
        UserError: the environment names certificates that cannot be read.
    """
    try:
        return httpx2.create_ssl_context()
    except (OSError, ssl.SSLError) as error:
        found = [f"{name}={os.environ[name]}" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
        raise UserError(f"{' '.join(found) or 'certificates'}: cannot be read: {error.strerror or error}") from None


def _proxies() -> str:
    """The variables that may name a proxy, as far as they are set, without credentials."""
    names = [name for upper in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY") for name in (upper, upper.lower())]
    return " ".join(f"{n}={os.environ[n].rpartition('@')[2]}" for n in names if os.environ.get(n)) or "the proxy"


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
