"""Memory of a process that computes on a CPU."""

from __future__ import annotations

import ctypes

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_LARGEST = 32 * 2**20  # the most that the second may be: half a heap of a thread's
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc hold on to what a step frees, for the next one; whether this is glibc.

    As it comes it gives the ends of its heap back to the system each time, which clears every page before it hands it
    out again: tens of thousands of them a step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none to be had
        return False
    return bool(mallopt(_MMAP, _LARGEST) and mallopt(_TRIM, _NEVER))
