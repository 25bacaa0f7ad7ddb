"""The ledger: keys, claims of living and dead processes, what counts as an answer, what may have been billed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from prospect.errors import MachineError
from prospect.judge.ledger import Claim, Fate, Ledger, Reply, request_key

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
KEY = request_key("http://a/v1", REQUEST)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path) as opened:
        yield opened


def killed(folder: Path, statements: str) -> None:
    """Run statements on the ledger in a process that dies without closing it."""
    code = f"""
import os, pathlib
from prospect.judge.ledger import Ledger
ledger = Ledger(pathlib.Path({str(folder)!r}))
{statements}
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])


def test_key_depends_on_everything_that_is_sent():
    others = [
        request_key("http://b/v1", REQUEST),
        *(request_key("http://a/v1", {**REQUEST, name: 1}) for name in ("model", "messages", "temperature", "seed")),
    ]
    assert len({KEY, *others}) == 6
    assert request_key("http://a/v1", dict(reversed(REQUEST.items()))) == KEY


def test_answer_survives_and_is_not_asked_again(tmp_path):
    with Ledger(tmp_path) as ledger:
        assert ledger.claim(KEY, REQUEST) is Claim.mine
        ledger.record(ledger.intend(KEY, "id"), Reply(Fate.answered, 200, b"raw \x00 bytes"))
        salt = ledger.salt
    with Ledger(tmp_path) as ledger:
        assert ledger.answers((KEY, "other")) == {KEY: b"raw \x00 bytes"}
        assert ledger.claim(KEY, REQUEST) is Claim.answered
        assert ledger.salt == salt
        assert ledger.tally((KEY,)).answered == 1


def test_errors_are_no_answers(ledger):
    for fate in (Fate.refused, Fate.lost, Fate.garbled):
        ledger.record(ledger.intend(KEY, "id"), Reply(fate, 500, b"body"))
    assert not ledger.answers((KEY,))
    tally = ledger.tally((KEY,))
    assert (tally.refused, tally.lost, tally.garbled, tally.maybe_billed) == (1, 1, 1, 1)


def test_garbled_replies_are_kept_but_answer_nothing(ledger):
    for body in (b"one", b"two"):
        ledger.record(ledger.intend(KEY, "id"), Reply(Fate.garbled, 200, body))
    assert not ledger.answers((KEY,))
    assert ledger.garbled((KEY,)) == [b"one", b"two"]
    assert ledger.claim(KEY, REQUEST) is Claim.mine


def test_claim_of_the_living_holds_and_ends(tmp_path, ledger):
    assert ledger.claim(KEY, REQUEST) is Claim.mine
    with Ledger(tmp_path) as other:
        assert other.claim(KEY, REQUEST) is Claim.busy
        other.release(KEY)
        assert other.claim(KEY, REQUEST) is Claim.busy, "only the owner can give a claim back"
        ledger.release(KEY)
        assert other.claim(KEY, REQUEST) is Claim.mine
    assert ledger.claim(KEY, REQUEST) is Claim.mine, "a closed ledger holds no claims"


def test_claim_of_the_dead_falls_and_its_call_is_counted(tmp_path, ledger):
    killed(tmp_path, f"ledger.claim({KEY!r}, {{}}); ledger.intend({KEY!r}, 'id')")
    assert ledger.claim(KEY, REQUEST) is Claim.mine
    call = ledger.intend(KEY, "id")
    assert ledger.tally((KEY,)).unseen == 1, "the dead one's; our own is under way"
    ledger.record(call, Reply(Fate.answered, 200, b"x"))
    assert ledger.tally((KEY,)).maybe_billed == 1


def test_half_a_transaction_leaves_nothing(ledger):
    def fails() -> None:
        raise MachineError("planted")

    with pytest.raises(MachineError):
        ledger.together([lambda: ledger.intend(KEY, "id"), fails])
    assert ledger.tally((KEY,)).unseen == 0
    assert ledger.together([lambda: ledger.claim(KEY, REQUEST), lambda: 7]) == [Claim.mine, 7]


def test_what_is_no_ledger_is_refused(tmp_path):
    (tmp_path / "ledger.sqlite3").write_bytes(b"something else entirely" * 100)
    with pytest.raises(MachineError, match=r"ledger\.sqlite3"):
        Ledger(tmp_path)
