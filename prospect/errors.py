"""Errors for people: one line that names the file, field or flag, what is wrong, and the nearest right thing.

Exit codes: 2 for what the user can mend in the command, config or data; 3 for the machine (no space, no network, no
GPU); 4 for an interrupted run. A traceback is shown only with ``debug=true``; it always goes to the run's log.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable


class ProspectError(Exception):
    """Base of the errors that end a command with one line instead of a traceback."""

    exit_code = 2


class UserError(ProspectError):
    """Something in the command, the configuration or the data that its user can mend."""

    exit_code = 2


class MachineError(ProspectError):
    """Something the machine lacks: disk space, network, a device, a package."""

    exit_code = 3


class NotConvergedError(MachineError):
    """A fit has not settled: its figures would be wrong, and are not given."""


def exit_code(work: Callable[[], int]) -> int:
    """What ``work`` returns; an error for people is its line on standard error and its code."""
    try:
        return work()
    except ProspectError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 4


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean `x`?)`` for the known name closest to ``word``, or an empty string if none is close."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean `{by_lower[close[0]]}`?)" if close else ""


class UnwrittenError(Exception):
    """A chat template writes nothing of an answer, or not what it calls. Its text is the reason that users read."""


class RefusedError(UserError):
    """A chat template refuses one conversation. ``reason``: the same without the conversation's own words."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
