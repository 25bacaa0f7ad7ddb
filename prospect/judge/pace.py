"""How many requests may be under way at once, shared by all workers: additive increase, multiplicative decrease.

A server that says "too many" halves the window and holds everybody back for as long as it asks; a window's worth of
clean replies widens it by one, up to the limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Pace:
    """A window over requests under way; made and used inside one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.window = float(limit)
        self._active = 0
        self._resume_at = 0.0
        self._cut_at = 0.0
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Wait for a place in the window; yields the time of entry."""
        while self._active >= int(self.window) or time.monotonic() < self._resume_at:
            self._changed.clear()
            await self._changed.wait()
        self._active += 1
        try:
            yield time.monotonic()
        finally:
            self._active -= 1
            self._changed.set()

    def clean(self) -> None:
        """A request came back without complaint."""
        self.window = min(self.window + 1 / self.window, float(self.limit))
        self._changed.set()

    def throttled(self, entered: float, wait: float) -> None:
        """The server refused a request that entered at ``entered``; nobody sends for ``wait`` seconds."""
        now = time.monotonic()
        if entered > self._cut_at:  # one burst of refusals is one sign, not many
            self.window, self._cut_at = max(1.0, self.window / 2), now
        self._resume_at = max(self._resume_at, now + wait)
        asyncio.get_running_loop().call_later(wait + 0.001, self._changed.set)

    def resume(self) -> None:
        """Hold nobody back any longer: the run is stopping."""
        self._resume_at = 0.0
        self._changed.set()
