"""Whole runs in pytest's own process leave its log handlers as they were."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    log = logging.getLogger("prospect")
    handlers, propagate = list(log.handlers), log.propagate
    yield
    for handler in log.handlers:
        if handler not in handlers:
            handler.close()
    log.handlers, log.propagate = handlers, propagate
