"""What servers and routers send instead of a plain chat completion, as seen in the field, and what each leads to."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from prospect.errors import MachineError, UserError
from prospect.judge import calls
from prospect.judge.client import Next, accepted
from prospect.judge.ledger import Fate
from prospect.judge.reply import read
from tests.judge.test_run import GAMES, run
from tests.planted import plant

USAGE = {"prompt_tokens": 7, "completion_tokens": 2}


def completion(content: Any, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {"model": "m", "choices": [{"message": message, "finish_reason": "stop"} | more], "usage": USAGE}


def stream(*pieces: dict[str, Any] | str) -> bytes:
    return "".join(f"data: {p if isinstance(p, str) else json.dumps(p)}\n\n" for p in pieces).encode()


def delta(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"delta": {"content": text}} | more]}


REPLIES: dict[str, tuple[Any, Next, Fate, str]] = {
    "busy": ({"error": {"code": 429, "message": "slow down"}}, Next.retry, Fate.refused, "slow down"),
    "no provider": ({"error": {"code": 502, "message": "none"}}, Next.retry, Fate.refused, "none"),
    "no credits": ({"error": {"code": 402, "message": "add credits"}}, Next.stop, Fate.refused, "add credits"),
    "moderation": ({"error": {"code": 403, "message": "flagged"}}, Next.stop_at_first, Fate.refused, "flagged"),
    "too long": ({"error": {"code": "400", "message": "too long"}}, Next.give_up, Fate.refused, "too long"),
    "named error": ({"error": {"type": "rate_limit_error", "message": "wait"}}, Next.retry, Fate.refused, "wait"),
    "text error": ({"error": "overloaded"}, Next.retry, Fate.refused, "overloaded"),
    "no money": ({"error": {"code": "insufficient_quota", "message": "pay"}}, Next.stop, Fate.refused, "pay"),
    "error in a choice": (
        completion("Response", finish_reason="error", error={"code": 503, "message": "died"}),
        Next.retry, Fate.refused, "died",
    ),
    "error as reason": (completion("Resp", finish_reason="error"), Next.retry, Fate.refused, "finish_reason is error"),
    "no choices": ({"model": "m", "choices": []}, Next.retry, Fate.garbled, "no choices"),
    "null choices": ({"model": "m", "choices": None}, Next.retry, Fate.garbled, "no choices"),
    "login page": (b"<!DOCTYPE html><title>Sign in</title>", Next.retry, Fate.garbled, "a page of HTML (Sign in)"),
    "nothing": (b"", Next.retry, Fate.garbled, "nothing"),
    "torn stream": (stream(delta("Resp")), Next.retry, Fate.garbled, "a stream that broke off"),
    "error in a stream": (
        stream(delta("Resp"), {"error": {"code": 429, "message": "later"}}), Next.retry, Fate.refused, "later",
    ),
}  # fmt: skip


def response_of(content: Any) -> Any:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return accepted(httpx2.Response(200, content=body))


@pytest.mark.parametrize(("content", "then", "fate", "why"), REPLIES.values(), ids=REPLIES)
def test_status_200_without_a_verdict(content, then, fate, why):
    found = response_of(content)
    assert (found.next, found.reply.fate) == (then, fate)
    assert why in found.reply.note
    assert "\n" not in found.reply.note


ANSWERS: dict[str, Any] = {
    "text": completion("Response 1"),
    "parts": completion([{"type": "text", "text": "Response"}, {"type": "text", "text": " 1"}]),
    "thinking parts": completion(
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Response 2?"}]},
            {"type": "text", "text": "Response 1"},
        ]
    ),
    "error: null": completion("Response 1") | {"error": None},
    "stream": stream(
        delta("Resp"), delta("onse 1"), delta("", finish_reason="stop"), {"usage": USAGE, "choices": []}, "[DONE]"
    ),
}


@pytest.mark.parametrize("content", ANSWERS.values(), ids=ANSWERS)
def test_other_forms_of_a_completion(content):
    found = response_of(content)
    assert found.next is Next.done
    reply = read(found.reply.body)
    assert reply is not None
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("Response 1", 7, 2)
    assert reply.reasons is (content is ANSWERS["thinking parts"])


@pytest.mark.parametrize(
    "usage", [{"input_tokens": 7, "output_tokens": 2}, {"prompt_tokens": 7.0, "completion_tokens": "2"}]
)
def test_tokens_by_other_names(usage):
    reply = read(json.dumps(completion("x") | {"usage": usage}).encode())
    assert reply is not None
    assert (reply.prompt_tokens, reply.completion_tokens) == (7, 2)


def refused_games(stub: Any, status: str, *numbers: int) -> None:
    """Have some prompts refused, whatever the others get."""
    words = [f"Question {number}?" for number in numbers]

    def faults(key: str, attempt: int) -> str | None:
        text = stub.requests[-1]["messages"][-1]["content"]
        return status if any(word in text for word in words) else None

    stub.faults = faults


def check_own_refusal(stub: Any, samples: Any, status: str) -> None:
    refused_games(stub, status, 3)
    code, result = run(stub, samples, "--concurrency", "1")
    assert (code, result["failed"], result["unparsed"]) == (3, 1, 2)
    assert sum(stub.games.values()) == GAMES - 2
    stub.faults = lambda key, attempt: None
    code, result = run(stub, samples)
    assert (code, result["failed"]) == (0, 0)
    assert set(stub.games.values()) == {1}


@pytest.mark.parametrize("status", ["403", "404"])
def test_a_refusal_after_an_accepted_call_is_its_own(stub, samples, status):
    check_own_refusal(stub, samples, status)


def test_planted_bug_a_refusal_that_stops_everybody_is_seen(stub, samples, monkeypatch):
    plant(monkeypatch, calls.Caller._others_are_accepted, "return self.accepted", "return False")
    with pytest.raises(UserError):
        check_own_refusal(stub, samples, "403")


def test_one_refusal_among_the_first_is_its_own(stub, samples):
    """Those under way at the same time are waited for: one of them is accepted."""
    stub.latency = 0.02
    first: list[str] = []

    def faults(key: str, attempt: int) -> str | None:
        first.append(key)
        return "403" if first[0] == key else None

    stub.faults = faults
    _, result = run(stub, samples)
    assert result["games_lost"]["failed"] == 1


@pytest.mark.parametrize("fault", ["401", "402", "quota"])
def test_a_key_or_money_that_ends_stops_the_run(stub, samples, fault):
    seen: list[str] = []

    def faults(key: str, attempt: int) -> str | None:
        seen.append(key)
        return fault if len(seen) > 20 else None

    stub.faults = faults
    with pytest.raises(UserError):
        run(stub, samples)
    assert len(seen) <= 20 + 8


def test_a_judge_without_a_system_role(stub, samples):
    """Gemma's template refuses it: with status 400 at one server, with 500 at another."""
    stub.refuses = lambda body: "System role not supported" if body["messages"][0]["role"] == "system" else None
    code, result = run(stub, samples)
    assert (code, result["unparsed"]) == (0, 2)
    game = stub.requests[-1]["messages"]
    assert [message["role"] for message in game] == ["user"]
    assert game[0]["content"].startswith("You compare two responses")


@pytest.mark.parametrize("path", ["", "/v2", "/v1/models", "/v1/chat/completions"])
def test_another_address_is_told_before_anything_is_judged(stub, samples, path):
    root = stub.url.removesuffix("/v1")
    stub.paths = ("/v1",)
    with pytest.raises(UserError, match=r"did you mean http://127.0.0.1:\d+/v1\?$"):
        run(stub, samples, "--base-url", root + path)
    assert not stub.requests


@pytest.mark.parametrize("path", ["/v1beta/openai", "/api/v3"])
def test_an_address_that_works_is_taken_as_it_is(stub, samples, path):
    assert run(stub, samples, "--base-url", stub.url.removesuffix("/v1") + path)[0] == 0


def test_a_page_of_html_is_no_api(stub, samples):
    stub.pages = True
    with pytest.raises(UserError, match=r"no API here: .*a page of HTML"):
        run(stub, samples)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000/v1", "did you mean http://localhost:8000/v1?"),
        ("judge.example.com/v1", "did you mean https://judge.example.com/v1?"),
        ("ftp://host/v1", "neither http:// nor https://"),
        ("http://host:port/v1", "Port could not be cast"),
    ],
)
def test_addresses_that_are_none(stub, samples, url, said):
    with pytest.raises(UserError) as caught:
        run(stub, samples, "--base-url", url)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ALL_PROXY", "socks5://me:pass@127.0.0.1:1", "ALL_PROXY=127.0.0.1:1: a SOCKS proxy needs the package socksio"),
        ("HTTPS_PROXY", "foo://127.0.0.1:1", "no address of a proxy"),
        ("SSL_CERT_FILE", "/missing/ca.pem", "SSL_CERT_FILE=/missing/ca.pem"),
    ],
)
def test_settings_of_the_environment(stub, samples, monkeypatch, variable, value, said):
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises((UserError, MachineError)) as caught:
        run(stub, samples, "--base-url", "https://127.0.0.1:9/v1")
    assert said in str(caught.value)
    assert "pass" not in str(caught.value)
