"""The server's own log joined with the ledger, call by call: what "maybe billed" is made of."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from tests.judge.conftest import Stub


@dataclass(frozen=True, slots=True)
class Bill:
    """``maybe_billed`` calls of the ledger by what the server says of them, and what would be wrong.

    ``never_received``: the process was killed between the row and the wire. ``not_counted``: billed calls that the
    ledger has neither a reply of nor counts as maybe billed. ``ambiguous``: ids that came or were billed twice.
    """

    billed: int
    received_only: int
    never_received: int
    not_counted: int
    ambiguous: int

    @property
    def maybe_billed(self) -> int:
        """What the ledger's figure has to be."""
        return self.billed + self.received_only + self.never_received


def bill(stub: Stub, folder: Path) -> Bill:
    """The bill of everything that was asked of the server through the ledger in ``folder``; all clients have ended."""
    with sqlite3.connect(folder / "ledger.sqlite3") as db:
        rows = db.execute("SELECT client_request_id, fate FROM calls").fetchall()
    with stub.lock:
        received, charged = stub.received.copy(), stub.charged.copy()
    unseen = [own_id for own_id, fate in rows if fate in (None, "lost")]
    replied = {own_id for own_id, fate in rows if fate in ("answered", "garbled")}
    billed = sum(own_id in charged for own_id in unseen)
    reached = sum(own_id in received for own_id in unseen)
    twice = len(rows) - len({own_id for own_id, _ in rows})
    return Bill(
        billed=billed,
        received_only=reached - billed,
        never_received=len(unseen) - reached,
        not_counted=len(charged.keys() - replied - set(unseen)),
        ambiguous=twice + sum(n > 1 for n in [*received.values(), *charged.values()]),
    )
