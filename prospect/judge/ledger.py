"""The ledger of everything that was asked of a judge, in SQLite: no answer that was received is lost or asked again.

Directly before a request's first byte is sent, a row says that it will be; as soon as its reply is here, the same row
holds it, raw. A row that never got its end belongs to a process that was killed with a request under way: it may have
been billed, and is counted as that. A request's key is the hash of all that was sent, so another prompt, model or
parameter is another key. Several processes may share a ledger: a key is claimed before it is asked, and claims of dead
processes fall to whoever comes next. Life is told by a file lock, which the kernel takes from the dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from prospect.errors import MachineError
from prospect.locks import locked

_SCHEMA = 1
_AT_ONCE = 500  # keys a query
BATCH = "batch "  # owners that are batches of an endpoint, not processes

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS requests (key TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, owner TEXT NOT NULL, sent_at REAL NOT NULL, ended_at REAL,
    fate TEXT, status INTEGER, request_id TEXT, note TEXT, body BLOB, client_request_id TEXT);
CREATE INDEX IF NOT EXISTS calls_by_key ON calls (key);
CREATE TABLE IF NOT EXISTS batches (
    mark TEXT PRIMARY KEY, endpoint TEXT NOT NULL, owner TEXT NOT NULL, number TEXT, keys TEXT NOT NULL,
    sent_at REAL NOT NULL, open INTEGER NOT NULL);
"""


class Fate(StrEnum):
    """What became of a call. ``answered`` and ``garbled`` calls have a body; ``lost`` ones may have been billed."""

    answered = "answered"
    garbled = "garbled"  # status 200, but no chat completion
    refused = "refused"  # an HTTP error, or not sent for want of a connection: not billed
    lost = "lost"  # sent, and no whole reply came back


class Claim(StrEnum):
    """What a process may do with a key."""

    mine = "mine"
    answered = "answered"
    busy = "busy"


@dataclass(frozen=True, slots=True)
class Reply:
    """How one call ended."""

    fate: Fate
    status: int | None = None
    body: bytes = b""
    request_id: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """Calls of a set of keys over all time, by fate. ``unseen``: killed with the request under way."""

    answered: int = 0
    garbled: int = 0
    refused: int = 0
    lost: int = 0
    unseen: int = 0

    @property
    def maybe_billed(self) -> int:
        """Calls whose reply nobody received."""
        return self.lost + self.unseen


def request_key(endpoint: str, request: Mapping[str, Any], repeat: int = 0) -> str:
    """The hash under which a request's answer is kept: endpoint, model, messages, all parameters, and how often it was
    asked before on purpose."""
    content = {"schema": _SCHEMA, "endpoint": endpoint, "request": request}
    if repeat:
        content["repeat"] = repeat
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Ledger:
    """An open ledger; use it as a context manager.

    Raises:
        MachineError: the file cannot be opened or written, or is no ledger.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ledger.sqlite3"
        self._owners = folder / "owners"
        self.me = uuid.uuid4().hex
        try:
            self._owners.mkdir(parents=True, exist_ok=True)
            with locked(folder / "opening.lock"):  # else a newcomer's file could pass for a dead process's
                self._alive = (self._owners / self.me).open("wb")
                fcntl.flock(self._alive, fcntl.LOCK_EX)
                self._open()
        except OSError as error:
            raise MachineError(f"{folder}: the judge's ledger cannot be kept here: {error.strerror}") from None
        if self.recall("schema") != str(_SCHEMA):
            raise MachineError(f"{self.file}: written by another version (schema {self.recall('schema')}); use --cache")
        self.salt = bytes.fromhex(self.recall("salt") or "")

    def _open(self) -> None:
        with self._errors():
            self._db = sqlite3.connect(self.file, timeout=60, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # a reply is on the disk before it counts as received
            self._db.executescript(_TABLES)
            if not self.rows("SELECT 1 FROM pragma_table_info('calls') WHERE name = 'client_request_id'"):
                self._db.execute("ALTER TABLE calls ADD COLUMN client_request_id TEXT")  # of an older ledger
            for name, value in (("schema", str(_SCHEMA)), ("salt", secrets.token_hex(32))):
                self._db.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, value))
            self._release_dead()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("DELETE FROM claims WHERE owner = ?", (self.me,))
        self._db.close()
        self._alive.close()
        (self._owners / self.me).unlink(missing_ok=True)

    def together(self, operations: Sequence[Callable[[], Any]]) -> list[Any]:
        """Results of operations on this ledger that reach the disk in one step."""
        with self.transaction():
            return [operation() for operation in operations]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in this block reaches the disk in one step, or nothing does."""
        with self._errors():
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What one statement gives."""
        with self._errors():
            return self._db.execute(query, values).fetchall()

    def recall(self, name: str) -> str | None:
        """A fact kept between runs."""
        rows = self.rows("SELECT value FROM facts WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def remember(self, name: str, value: str) -> None:
        """Keep a fact between runs."""
        self.rows("INSERT OR REPLACE INTO facts VALUES (?, ?)", name, value)

    def forget(self, name: str) -> None:
        """Drop a fact that may no longer hold."""
        self.rows("DELETE FROM facts WHERE name = ?", name)

    def answers(self, keys: Collection[str]) -> dict[str, bytes]:
        """The raw reply to each key that has one: the first answer. What came in place of one is none."""
        found: dict[str, bytes] = {}
        for key, body in self._of_keys("key, body", keys, f"AND body IS NOT NULL AND fate = '{Fate.answered}'"):
            found.setdefault(key, body)
        return found

    def garbled(self, keys: Collection[str]) -> list[bytes]:
        """What came in place of chat completions; it may have been billed, too."""
        return [body for (body,) in self._of_keys("body", keys, f"AND body IS NOT NULL AND fate = '{Fate.garbled}'")]

    def recent(self, model: str, most: int = 200) -> list[tuple[dict[str, Any], bytes]]:
        """The last answered requests to a model, with their raw replies."""
        query = (
            "SELECT requests.body, calls.body FROM calls JOIN requests USING (key) "
            "WHERE fate = ? AND json_extract(requests.body, '$.model') = ? ORDER BY id DESC LIMIT ?"
        )
        with self._errors():
            rows = self._db.execute(query, (str(Fate.answered), model, most)).fetchall()
        return [(json.loads(request), reply) for request, reply in rows]

    def claim(self, key: str, request: Mapping[str, Any]) -> Claim:
        """Take a key for this process, unless it has its answer or another live process is at it."""
        if self._is_busy(key):
            return Claim.busy
        with self.transaction():
            if self.answers((key,)):
                return Claim.answered
            if self._is_busy(key):
                return Claim.busy
            self._db.execute("INSERT OR IGNORE INTO requests VALUES (?, ?)", (key, json.dumps(request)))
            self._db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?)", (key, self.me))
            return Claim.mine

    def release(self, key: str) -> None:
        """Give a claimed key back."""
        with self._errors():
            self._db.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self.me))

    def intend(self, key: str, own_id: str) -> int:
        """Write down that a call is about to be made, under an id that the provider is told, too; its number here."""
        query = "INSERT INTO calls (key, owner, sent_at, client_request_id) VALUES (?, ?, ?, ?) RETURNING id"
        return int(self.rows(query, key, self.me, time.time(), own_id)[0][0])

    def record(self, call: int, reply: Reply) -> None:
        """Write down how a call ended, at once: on the disk, whatever happens to the machine, when this returns."""
        body = reply.body if reply.fate in (Fate.answered, Fate.garbled) else None
        with self._errors():
            self._db.execute(
                "UPDATE calls SET ended_at = ?, fate = ?, status = ?, request_id = ?, note = ?, body = ? WHERE id = ?",
                (time.time(), str(reply.fate), reply.status, reply.request_id, reply.note, body, call),
            )

    def tally(self, keys: Collection[str]) -> Tally:
        """How the calls of these keys ended; those under way in a live process are not among them."""
        counts = dict.fromkeys((*map(str, Fate), "unseen"), 0)
        alive: dict[str, bool] = {}
        for fate, owner in self._of_keys("fate, owner", keys):
            if fate is None and owner not in alive:
                alive[owner] = self.lives(owner)
            if fate is not None or not alive[owner]:
                counts[fate or "unseen"] += 1
        return Tally(**counts)

    def _of_keys(self, columns: str, keys: Collection[str], condition: str = "") -> Iterator[tuple[Any, ...]]:
        ordered = list(keys)
        for start in range(0, len(ordered), _AT_ONCE):
            some = ordered[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            query = f"SELECT {columns} FROM calls WHERE key IN ({marks}) {condition} ORDER BY id"
            with self._errors():
                yield from self._db.execute(query, some).fetchall()

    def _is_busy(self, key: str) -> bool:
        with self._errors():
            row = self._db.execute("SELECT owner FROM claims WHERE key = ?", (key,)).fetchone()
        return row is not None and row[0] != self.me and self.lives(row[0])

    def lives(self, owner: str) -> bool:
        """Whether the process that holds an owner's file is still there, or a batch is still under way."""
        if owner == self.me:
            return True
        if owner.startswith(BATCH):
            return bool(self.rows("SELECT 1 FROM batches WHERE mark = ? AND open", owner.removeprefix(BATCH)))
        try:
            with (self._owners / owner).open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def _release_dead(self) -> None:
        """Clear up after killed processes."""
        for (owner,) in self._db.execute("SELECT DISTINCT owner FROM claims").fetchall():
            if not self.lives(owner):
                self._db.execute("DELETE FROM claims WHERE owner = ?", (owner,))
        for file in self._owners.iterdir():
            if not self.lives(file.name):
                file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise MachineError(f"{self.file}: {error}; process {os.getpid()} stops so that no reply is lost") from error
