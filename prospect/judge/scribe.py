"""Lets many workers write to the ledger at once: what gathers while the disk is busy goes into the next transaction.

A commit waits for the disk (milliseconds, on a network file system tens of them). Waiting in the event loop would hold
up every request; one thread and one commit for all who wait do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from prospect.judge.ledger import Ledger

T = TypeVar("T")


class Scribe:
    """The only user of ``ledger`` while workers run."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def do(self, operation: Callable[[], T]) -> T:
        """The result of an operation on the ledger, once it is on the disk."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, future))
        if self._task is None:
            self._task = asyncio.create_task(self._write())
        return await future

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                results = await asyncio.to_thread(self._ledger.together, [operation for operation, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        self._task = None
