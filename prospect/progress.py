"""Progress of long work: a bar with rate and time left on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_EVERY_SECONDS = 15.0  # between lines in a log


@dataclass(slots=True)
class Progress:
    """What the worker moves; rendering is left to a terminal's bar or to lines."""

    title: str
    total: int | None
    unit: str
    done: int = 0
    note: str = ""
    started: float = field(default_factory=time.monotonic)
    last_line: float = field(default_factory=time.monotonic)
    start_at: int = 0
    draw: Callable[[Progress], None] | None = None  # a terminal's bar

    def advance(self, by: int, note: str | None = None) -> None:
        """``by`` more units are done; ``note`` replaces the text at the line's end."""
        self.done += by
        if note is not None:
            self.note = note
        if self.draw is not None:
            self.draw(self)
            return
        now = time.monotonic()
        if now - self.last_line >= _EVERY_SECONDS:
            self.last_line = now
            print(self.line(), flush=True)

    def line(self) -> str:
        """The state in one line."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = (self.done - self.start_at) / seconds
        of, left = "", ""
        if self.total is not None:
            of = f"/{self.total}"
            left = f", {_clock((self.total - self.done) / rate)} left" if rate > 0 else ""
        note = f"  {self.note}" if self.note else ""
        return f"{self.title}: {self.done}{of} {self.unit}, {rate:.3g}/s{left}{note}"


@contextmanager
def progress(title: str, total: int | None, unit: str, done: int = 0, show: bool = True) -> Iterator[Progress]:
    """Show progress of a piece of work while it runs; ``show=False`` (ranks other than 0) counts in silence."""
    if not show:
        state = Progress(title, total, unit, done, last_line=float("inf"), start_at=done)
        yield state
        return
    if not sys.stdout.isatty():
        state = Progress(title, total, unit, done, start_at=done)
        yield state
        if state.done > done:
            print(state.line(), flush=True)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with RichProgress(*columns) as rich:
        task = rich.add_task(title, total=total, completed=done, note="")
        yield Progress(
            title,
            total,
            unit,
            done,
            start_at=done,
            draw=lambda state: rich.update(task, completed=state.done, note=state.note),
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
