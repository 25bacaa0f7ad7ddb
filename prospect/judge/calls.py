"""Asking for what the ledger lacks: concurrent, retried, and safe to stop at any moment.

The order of things for each attempt: claim the key, connect, write the intent, send, write the reply. A stop (Ctrl-C, a
refused key, the limit of requests) sends nothing more but waits for what is under way, because it may have been paid
for.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from prospect.errors import MachineError, ProspectError, UserError
from prospect.judge.client import KEY_VARIABLE, Endpoint, Next, Response
from prospect.judge.cost import Meter
from prospect.judge.ledger import Claim, Fate, Ledger, Reply
from prospect.judge.pace import Pace
from prospect.judge.scribe import Scribe

Request = Mapping[str, Any]
_POLL = 0.1  # seconds between looks at keys that another process is asking for
_MOST_GARBLED = 2  # replies to a key that are no chat completion but may have been billed, in one run


class Interrupted(ProspectError):
    """The run was stopped before its end; the same command continues it."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is tried, the scale and cap of the waits, and how many failures in a row end the run."""

    tries: int = 8
    base: float = 0.5
    cap: float = 60.0
    failures_in_a_row: int = 20

    def wait(self, attempt: int) -> float:
        """Seconds before the next try: full jitter, so that clients do not come back together."""
        return random.uniform(0.0, min(self.cap, self.base * 2.0**attempt))


class Caller:
    """Asks an endpoint; every attempt goes through the ledger. ``sent`` and ``answered`` count this process's own."""

    def __init__(
        self, endpoint: Endpoint, ledger: Ledger, concurrency: int, patience: Patience, max_requests: int | None
    ) -> None:
        self.endpoint, self.ledger, self.patience = endpoint, ledger, patience
        self.scribe = Scribe(ledger)
        self.sent = self.answered = 0
        self.accepted = False  # whether the endpoint has answered a request for this model, now or earlier
        self._settling = self._refused = 0
        self.meter = Meter(None, {}, None)
        self._max_requests = max_requests
        self._concurrency = concurrency
        self._pace = Pace(concurrency)
        self._stopped = asyncio.Event()
        self._why: ProspectError | None = None
        self._in_a_row = 0

    async def ask_all(self, requests: Mapping[str, Request], done: Callable[[], None]) -> dict[str, str]:
        """Ask for every key, calling ``done`` as each is settled; returns what failed, with the last reason.

        Raises:
            ProspectError: the run was stopped. What was received is in the ledger.
        """
        queue = deque(requests)
        failures: dict[str, str] = {}
        releases: list[asyncio.Future[None]] = []

        async def work() -> None:
            while queue and not self._stopped.is_set():
                key = queue.popleft()
                claim = await self.scribe.do(partial(self.ledger.claim, key, requests[key]))
                if claim is Claim.busy:
                    queue.append(key)
                    await self.pause()
                    continue
                if claim is Claim.mine:
                    try:
                        failure = await self._settle(key, requests[key])
                    finally:  # nobody here waits for a key to be free again
                        releases.append(asyncio.ensure_future(self.scribe.do(partial(self.ledger.release, key))))
                    if failure is not None:
                        failures[key] = failure
                if not self._stopped.is_set():
                    done()

        with self.signals():
            results = await asyncio.gather(
                *(work() for _ in range(min(self._concurrency, len(queue)))), return_exceptions=True
            )
            results += await asyncio.gather(*releases, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        self.check()
        return failures

    async def attempt(self, key: str, request: Request) -> Response:
        """Try a claimed key until it is answered, refused for good, or patience ends; the last response."""
        response = await self._send(key, request)
        garbled = 0
        for attempt in range(self.patience.tries - 1):
            garbled += response.reply.fate is Fate.garbled
            if response.next is not Next.retry or garbled == _MOST_GARBLED:
                break
            await self.pause(self.patience.wait(attempt) if response.wait is None else response.wait)
            response = await self._send(key, request)
        return response

    async def pause(self, seconds: float = _POLL) -> None:
        """Wait, but not past a stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)

    def check(self) -> None:
        """Raise what stopped the run, if anything has."""
        if self._why is not None:
            raise self._why

    def stop(self, why: ProspectError) -> None:
        """Send nothing more; the first reason is the one that is told."""
        self._why = self._why or why
        self._stopped.set()
        self._pace.resume()

    def admits(self, key: str) -> bool:
        """Whether one more request may be sent; it then counts as sent. A limit that is reached stops the run."""
        if not self._stopped.is_set():
            if self._max_requests is not None and self.sent >= self._max_requests:
                self.stop(Interrupted(f"--max-requests {self._max_requests} reached; the same command continues"))
            elif not self.meter.fits(key):
                self.stop(Interrupted(f"--max-usd {self.meter.max_usd:g} reached; the same command continues"))
        self.sent += not self._stopped.is_set()
        return not self._stopped.is_set()

    def signals(self) -> _Signals:
        """Ctrl-C stops the run in order inside this block."""
        return _Signals(self._interrupt)

    async def _settle(self, key: str, request: Request) -> str | None:
        """Ask for one key; why it has no answer, if it has none."""
        self._settling += 1
        try:
            response = await self.attempt(key, request)
            if response.next is Next.done:
                self._in_a_row = 0
                self.answered += 1
                self.accepted = True
                return None
            hopeless = response.next is Next.stop or (
                response.next is Next.stop_at_first and not await self._others_are_accepted()
            )
        finally:
            self._settling -= 1
        note = response.reply.note
        if hopeless:
            self.stop(refusal(self.endpoint, request.get("model"), response.reply))
        if self.accepted and response.next is not Next.retry:
            return note  # of this request alone: its content, its length
        self._in_a_row += 1
        if self._in_a_row >= self.patience.failures_in_a_row:
            self.stop(
                MachineError(f"{self.endpoint.base_url}: {self._in_a_row} requests in a row failed; last: {note}")
            )
        return note

    async def _others_are_accepted(self) -> bool:
        """Whether a refusal is this request's own; waits for what is under way, unless all of that is refused too."""
        self._refused += 1
        try:
            while not self.accepted and not self._stopped.is_set() and self._refused < self._settling:
                await self.pause()
            return self.accepted
        finally:
            self._refused -= 1

    async def _send(self, key: str, request: Request) -> Response:
        """One attempt, written down before and after."""
        async with self._pace.slot() as entered:
            if not self.admits(key):
                return Response(Reply(Fate.refused, note="stopped"), Next.give_up)
            own_id = str(uuid.uuid4())
            intend = partial(self.ledger.intend, key, own_id)
            call: int | None = None

            async def before() -> None:
                nonlocal call
                call = await self.scribe.do(intend)

            def record() -> None:  # what could not be sent has no row yet
                self.ledger.record(intend() if call is None else call, response.reply)

            try:
                response = await self.endpoint.complete(request, own_id, before)
                await self.scribe.do(record)
                self.meter.landed(key, response.reply.body, response.reply.fate is Fate.lost)
            except Exception as error:
                self.stop(error if isinstance(error, ProspectError) else MachineError(repr(error)))
                raise
        if response.throttled:
            wait = response.wait if response.wait is not None else self.patience.base
            self._pace.throttled(entered, wait)
        elif response.next is Next.done:
            self._pace.clean()
        return response

    def _interrupt(self) -> None:
        if self._stopped.is_set():
            raise KeyboardInterrupt
        print("stopping: waiting for the requests under way; once more to leave them behind", flush=True)
        self.stop(Interrupted("interrupted; the same command continues"))


def refusal(endpoint: Endpoint, model: object, reply: Reply) -> UserError:
    """What to do about a refusal that any other request would get too."""
    if reply.status in (401, 403):
        if endpoint.withholds_key:
            return UserError(f"{endpoint.base_url} wants a key: {withheld(endpoint)} ({reply.note})")
        return UserError(f"{endpoint.base_url} refuses the key in {KEY_VARIABLE}: {reply.note}")
    if reply.status == 404:
        return UserError(f"{endpoint.base_url} does not serve -j {model}: {reply.note}")
    return UserError(f"{endpoint.base_url}: {reply.note}")


def withheld(endpoint: Endpoint) -> str:
    """That a key is not sent, and what sends it."""
    return f"the key in {KEY_VARIABLE} is not sent unencrypted to {endpoint.base_url}; --send-key sends it"


class _Signals:
    """Ctrl-C and SIGTERM end a run in order, while this block runs in the main thread."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, handler: Callable[[], None]) -> None:
        self._handler = handler
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        try:
            for number in self._SIGNALS:
                self._loop.add_signal_handler(number, self._handler)
        except (RuntimeError, ValueError):
            pass  # not the main thread: whoever runs us there handles signals

    def __exit__(self, *_: object) -> None:
        for number in self._SIGNALS:
            self._loop.remove_signal_handler(number)
