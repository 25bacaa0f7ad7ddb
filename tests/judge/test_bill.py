"""What may have been billed unseen: what the client knows not to be, and the rest against the server's log, by id."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from pathlib import Path

import pytest

from prospect.judge import client
from prospect.judge.calls import Caller, Patience
from prospect.judge.client import Endpoint
from prospect.judge.ledger import Fate, Ledger, Reply, Tally, request_key
from tests.judge.bill import Bill, bill
from tests.judge.conftest import Stub
from tests.judge.test_ledger import killed
from tests.judge.test_run import run
from tests.planted import plant

REQUEST = {"model": "stub", "messages": [{"role": "user", "content": "hi"}]}
FAULTS = ("hang", "reset", "torn", "cut", "429", "500", "html", None)


def tally(url: str, folder: Path, timeout: float = 0.3) -> Tally:
    """What the ledger holds of one request that is tried twice."""

    async def ask(ledger: Ledger) -> None:
        caller = Caller(Endpoint(url, timeout), ledger, 1, Patience(tries=2, base=0.001), None)
        await caller.ask_all({"key": REQUEST}, lambda: None)
        await caller.endpoint.close()

    with Ledger(folder) as ledger:
        asyncio.run(ask(ledger))
        return ledger.tally(["key"])


@pytest.fixture
def silent():
    """A port where somebody listens and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_no_such_name(tmp_path, monkeypatch):
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert tally("http://nowhere.invalid/v1", tmp_path) == Tally(refused=2)


def test_no_tls(stub, tmp_path):
    assert tally(stub.url.replace("http:", "https:"), tmp_path) == Tally(refused=2)


def test_no_end_of_the_tls_handshake(silent, tmp_path):
    assert tally(f"https://127.0.0.1:{silent}/v1", tmp_path) == Tally(refused=2)


def test_no_tunnel_through_a_proxy(silent, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent}")
    assert tally("https://judge.example/v1", tmp_path) == Tally(refused=2)


def test_what_was_sent_may_be_billed(silent, tmp_path):
    assert tally(f"http://127.0.0.1:{silent}/v1", tmp_path) == Tally(lost=2)


def check_faulty(stub: Stub, samples: Path) -> None:
    """Each kind of fault hits two of the 16 first attempts; four kinds of them end without a reply, but billed."""
    keys: list[str] = []

    def faults(key: str, attempt: int) -> str | None:
        keys.append(key)
        return None if attempt else FAULTS[len(set(keys)) % len(FAULTS)]

    stub.faults = faults
    _, result = run(stub, samples, "--timeout", "0.7", "-mc", "8")
    assert bill(stub, samples.parent / "cache") == Bill(8, 0, 0, 0, 0)
    assert result["spent"]["maybe_billed_unseen"] == 8 == sum(stub.games.values()) - 16 - 2


def check_order(stub: Stub, samples: Path) -> None:
    """The row is on the disk when the request is read."""
    rows: list[int] = []

    def look(body: object) -> None:
        with sqlite3.connect(samples.parent / "ledger.sqlite3") as db:
            rows.append(db.execute("SELECT COUNT(*) FROM calls WHERE fate IS NULL").fetchone()[0])

    stub.refuses = look
    assert tally(stub.url, samples.parent, timeout=5.0) == Tally(answered=1)
    assert rows == [1]


def check_unsent(stub: Stub, samples: Path) -> None:
    """Where nobody listens nothing is sent."""
    url = stub.url
    stub.close()
    assert tally(url, samples.parent) == Tally(refused=2)


@pytest.mark.parametrize("check", [check_faulty, check_order, check_unsent])
def test_maybe_billed(stub, samples, check):
    check(stub, samples)


@pytest.mark.parametrize(
    ("check", "function", "old", "new"),
    [
        (check_faulty, client._no_reply, "Fate.lost if sent else Fate.refused", "Fate.refused"),
        (check_faulty, Endpoint.send, "sent = True", "sent = False"),
        (check_faulty, Caller._send, "str(uuid.uuid4())", "'the same'"),
        (check_order, Endpoint.send, "if before is not None", "if False"),
        (check_unsent, client._no_reply, "Fate.lost if sent else Fate.refused", "Fate.lost"),
    ],
)
def test_planted_bugs_are_noticed(stub, samples, monkeypatch, check, function, old, new):
    plant(monkeypatch, function, old, new)
    with pytest.raises(AssertionError, match="assert"):
        check(stub, samples)


def test_reset_before_anything_was_done_cannot_be_told_from_a_lost_reply(stub, samples):
    stub.faults = lambda key, attempt: "refused connection" if attempt == 0 else None
    run(stub, samples, "-mc", "5")
    assert bill(stub, samples.parent / "cache") == Bill(0, 10, 0, 0, 0)


def test_killed_before_the_wire_is_counted(stub, samples):
    run(stub, samples, "-mc", "5")
    folder = samples.parent / "cache"
    killed(folder, "ledger.intend('key', 'id')")
    assert bill(stub, folder) == Bill(0, 0, 1, 0, 0)
    with Ledger(folder) as ledger:
        assert ledger.tally(["key"]) == Tally(unseen=1)


def test_older_ledger_is_read_and_goes_on(tmp_path):
    key = request_key("http://a/v1", REQUEST)
    with Ledger(tmp_path) as ledger:
        ledger.record(ledger.intend(key, "id"), Reply(Fate.answered, 200, b"raw"))
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as db:
        db.execute("ALTER TABLE calls DROP COLUMN client_request_id")
    with Ledger(tmp_path) as ledger:
        assert ledger.answers((key,)) == {key: b"raw"}
        ledger.intend(key, "another")
        assert ledger.rows("SELECT client_request_id FROM calls ORDER BY id") == [(None,), ("another",)]
