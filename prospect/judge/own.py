"""A user's own parameters of a request: ``--extra-body`` and ``--reasoning-effort``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prospect.errors import UserError

_OURS = ("model", "messages", "stream", "n", "logprobs", "top_logprobs", "response_format", "questions")


@dataclass(frozen=True, slots=True)
class Own:
    """``body`` is JSON text of an object that is added to every request; null in it leaves a parameter out."""

    body: str = ""

    @property
    def mark(self) -> str:
        """Tells apart what was asked with other parameters; nothing where there are none."""
        return f" with {self.body}" if self.body else ""

    def record(self) -> dict[str, str]:
        """What a line of results says of them."""
        return {"request": self.body} if self.body else {}

    def added_to(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request with these parameters, which have the last word."""
        whole = {**body, **(json.loads(self.body) if self.body else {})}
        return {name: value for name, value in whole.items() if value is not None}


NOTHING = Own()


def own_of(extra: str | None, effort: str | None) -> Own:
    """From the two flags.

    Raises:
        UserError: the JSON is no object, or sets what verdicts are read by.
    """
    try:
        body = json.loads(extra) if extra else {}
    except ValueError as error:
        raise UserError(f"--extra-body: no JSON: {error}") from None
    if not isinstance(body, dict):
        raise UserError(f"--extra-body: expected an object, as in '{{\"top_k\": 1}}', found {json.dumps(body)[:40]}")
    taken = [name for name in _OURS if name in body]
    if taken:
        raise UserError(f"--extra-body: `{taken[0]}` is set by compare.py: verdicts are read by it")
    if effort is not None:
        if body.get("reasoning_effort", effort) != effort:
            raise UserError("--extra-body and --reasoning-effort name two efforts: drop one")
        body["reasoning_effort"] = effort
    return Own(json.dumps(body, sort_keys=True) if body else "")
