"""Planted bugs: a piece of the shipped code is changed for one test, which must then fail its check."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import pytest


def plant(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], old: str, new: str, times: int = 1) -> None:
    """Replace ``old``, which stands there ``times``, by ``new`` in the running code of ``function``.

    It is changed in place: everybody who has imported it runs the changed code.
    """
    function = inspect.unwrap(getattr(function, "__func__", function))
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == times, f"{function.__qualname__} has not {times} `{old}` any more: plant the bug anew"
    undecorated = source[source.index("async def " if inspect.iscoroutinefunction(function) else "def ") :]
    namespace: dict[str, Any] = {}
    exec("from __future__ import annotations\n" + undecorated.replace(old, new), function.__globals__ | {}, namespace)
    monkeypatch.setattr(function, "__code__", namespace[function.__name__].__code__)
