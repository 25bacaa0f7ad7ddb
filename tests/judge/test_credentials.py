"""What a user tells a judge's server stays between the two: keys, passwords and further parameters."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from prospect.errors import UserError
from prospect.judge import address, client
from prospect.judge.address import Address, address_of
from prospect.judge.capabilities import Capabilities
from prospect.judge.commands import run as command
from prospect.judge.ledger import request_key
from prospect.judge.own import NOTHING, own_of
from tests.judge.test_run import run
from tests.planted import plant

SECRETS = ("hunter2secret", "qsecret77", "sk-canary-1234", base64.b64encode(b"me:hunter2secret").decode())


def secret_url(url: str) -> str:
    return url.replace("http://", "http://me:hunter2secret@") + "?api_key=qsecret77&api-version=2026-01"


def everywhere(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def check_no_file_has_a_secret(stub: Any, samples: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRETS[2])
    stub.faults = lambda key, attempt: "echo" if attempt == 0 else None
    flags = ("-csv", str(samples.parent / "games.csv"), "--report", str(samples.parent / "page.html"), "-v")
    code, result = run(stub, samples, "--base-url", secret_url(stub.url), *flags)
    assert (code, result["failed"]) == (0, 0)
    said = capsys.readouterr()
    found = everywhere(samples.parent) + (said.out + said.err).encode()
    assert stub.url.encode() in found
    for secret in SECRETS:
        assert secret.encode() not in found, secret


def test_no_file_has_a_secret(stub, samples, monkeypatch, capsys):
    """Though the server repeats them in its errors."""
    check_no_file_has_a_secret(stub, samples, monkeypatch, capsys)
    sent = stub.headers[-1]
    assert sent["path"] == "/v1/chat/completions?api_key=qsecret77&api-version=2026-01"
    assert sent["Authorization"] == "Basic " + base64.b64encode(b"me:hunter2secret").decode()


def test_planted_bug_a_server_that_repeats_a_key_is_seen(stub, samples, monkeypatch, capsys):
    plant(monkeypatch, client.Endpoint._hidden, 'text.replace(secret, "***")', "text")
    with pytest.raises(AssertionError):
        check_no_file_has_a_secret(stub, samples, monkeypatch, capsys)


def test_another_password_asks_nothing_again(stub, samples):
    run(stub, samples)
    asked = sum(stub.bill.values())
    run(stub, samples, "--base-url", secret_url(stub.url))
    assert sum(stub.bill.values()) == asked


def test_keys_of_requests_are_those_of_ever():
    """A changed key would have everything that was paid for asked again."""
    body = Capabilities("max_tokens", 9).request("m", [{"role": "user", "content": "x"}], 0, own=NOTHING)
    known = "2f8283dcdf92a769e6f0413c41fae55f0785f4420e593127da119aaee76a6fb1"
    assert request_key(address_of("https://api.openai.com/v1/").public, body) == known


def test_a_key_is_not_sent_where_anybody_can_read_it(stub, samples, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", SECRETS[2])
    run(stub, samples, "-mc", "1")
    assert {headers["Authorization"] for headers in stub.headers} == {f"Bearer {SECRETS[2]}"}, "this machine"
    monkeypatch.setattr(address, "_is_here", lambda host: False)
    run(stub, samples, "-mc", "2")
    assert "is not sent unencrypted to http://127.0.0.1" in capsys.readouterr().err
    assert stub.headers[-1]["Authorization"] == "Bearer none"
    run(stub, samples, "-mc", "3", "--send-key")
    assert stub.headers[-1]["Authorization"] == f"Bearer {SECRETS[2]}"
    stub.faults = lambda key, attempt: "401"
    with pytest.raises(UserError, match="--send-key sends it"):
        run(stub, samples, "-mc", "4")


@pytest.mark.parametrize(
    ("url", "exposes"),
    [
        ("http://localhost:8000/v1", False),
        ("http://127.0.0.9/v1", False),
        ("http://[::1]:80/v1", False),
        ("https://judge.example.com", False),
        ("http://judge.example.com/v1", True),
        ("http://localhost.example.com/v1", True),
        ("http://10.0.0.3:8000/v1", True),
    ],
)
def test_which_addresses_anybody_can_read(url, exposes):
    assert address_of(url).exposes is exposes


def test_an_address_is_put_together_again():
    given = address_of("https://u:p%40ss@[::1]:8443/openai/?api-version=1 ")
    assert given.public == "https://[::1]:8443/openai"
    assert given.url("/batches?limit=9") == "https://u:p%40ss@[::1]:8443/openai/batches?api-version=1&limit=9"
    assert "p@ss" in given.secrets
    assert "p%40ss" not in repr(given)
    assert [other.public for other in given.others()] == ["https://[::1]:8443/openai/v1", "https://[::1]:8443/v1"]
    assert given.others()[0] == Address("https://[::1]:8443/openai/v1", "u:p%40ss", "api-version=1")


def test_own_parameters_have_the_last_word_and_their_own_keys(stub, samples):
    _, plain = run(stub, samples, "-mc", "5")
    extra = ("--extra-body", '{"top_k": 1, "temperature": 0.5, "seed": null}', "--reasoning-effort", "high")
    _, result = run(stub, samples, "-mc", "5", *extra)
    body = stub.requests[-1]
    assert (body["top_k"], body["temperature"], body["reasoning_effort"]) == (1, 0.5, "high")
    assert "seed" not in body
    assert sum(stub.games.values()) == 20, "all asked anew"
    assert json.loads(result["request"]) == {"reasoning_effort": "high", "seed": None, "temperature": 0.5, "top_k": 1}
    assert result["judgments"] != plain["judgments"]
    with pytest.raises(UserError, match="different judge's prompts or endpoints"):
        command(["paired", plain["judgments"], result["judgments"]])


@pytest.mark.parametrize(
    ("extra", "effort", "said"),
    [
        ("[1]", None, "expected an object"),
        ("{top_k: 1}", None, "no JSON"),
        ('{"messages": []}', None, "`messages` is set by compare.py"),
        ('{"stream": true}', None, "`stream` is set by compare.py"),
        ('{"reasoning_effort": "low"}', "high", "two efforts"),
    ],
)
def test_own_parameters_that_cannot_be(extra, effort, said):
    with pytest.raises(UserError, match=said):
        own_of(extra, effort)
