"""Retry-After, the shared window, and what a preflight finds out."""

from __future__ import annotations

import asyncio
import email.utils
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from prospect.errors import MachineError, UserError
from prospect.judge.calls import Caller, Patience
from prospect.judge.capabilities import Capabilities, Wants
from prospect.judge.client import Endpoint, _retry_after
from prospect.judge.ledger import Ledger
from prospect.judge.options import OPENAI
from prospect.judge.pace import Pace
from prospect.judge.preflight import CANDIDATES, choose, preflight, recall, retirement


def test_retry_after():
    in_ten = email.utils.formatdate(time.time() + 10, usegmt=True)
    assert _retry_after({"retry-after": "1.5"}) == 1.5
    assert _retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert _retry_after({"retry-after": "86400"}) == 120.0
    assert _retry_after({"retry-after": "-3"}) == 0.0
    assert 8 < (_retry_after({"retry-after": in_ten}) or 0) <= 10
    assert _retry_after({}) is _retry_after({"retry-after": "soon"}) is _retry_after({"retry-after": "nan"}) is None


def test_patience_is_jittered_and_capped():
    waits = [Patience(base=1.0, cap=4.0).wait(attempt) for attempt in (0, 1, 9) for _ in range(50)]
    assert max(waits[:50]) <= 1.0 < max(waits[50:100]) <= 2.0
    assert max(waits) <= 4.0
    assert len(set(waits)) == 150


def test_pace_halves_once_a_burst_and_widens_slowly():
    async def scenario() -> list[float]:
        pace = Pace(8)
        windows = []
        async with pace.slot() as entered:
            pace.throttled(entered, 0.0)
            pace.throttled(entered, 0.0)
            windows.append(pace.window)
        await asyncio.sleep(0.01)
        async with pace.slot() as later:
            pace.throttled(later, 0.05)
            windows.append(pace.window)
        start = time.monotonic()
        async with pace.slot():
            windows.append(time.monotonic() - start)
        for _ in range(2):
            pace.clean()
        windows.append(pace.window)
        for _ in range(100):
            pace.clean()
        return [*windows, pace.window]

    first, second, waited, third, full = asyncio.run(scenario())
    assert (first, second, full) == (4.0, 2.0, 8.0)
    assert 2.5 < third < 3.1
    assert waited >= 0.04


def with_caller(url: str, folder: Path, work: Any) -> Any:
    async def run(ledger: Ledger) -> Any:
        caller = Caller(Endpoint(url, 2.0), ledger, 4, Patience(tries=2, base=0.001), None)
        try:
            return await work(caller)
        finally:
            await caller.endpoint.close()

    with Ledger(folder) as ledger:
        return asyncio.run(run(ledger))


def soon(days: int) -> str:
    return (date.today() + timedelta(days)).isoformat()


def test_choice_of_a_judge(stub, tmp_path):
    assert with_caller(stub.url, tmp_path, choose) == "stub", "the only one"
    stub.models = [{"id": name} for name in ("other", *reversed(CANDIDATES))]
    assert with_caller(stub.url, tmp_path, choose) == CANDIDATES[0]
    stub.models = [{"id": name, "shutdown_date": soon(30)} for name in CANDIDATES[:2]] + [{"id": CANDIDATES[2]}]
    assert with_caller(stub.url, tmp_path, choose) == CANDIDATES[2]
    stub.models = [{"id": "a"}, {"id": "b"}]
    with pytest.raises(UserError, match=r"name one with -j \(it serves a, b\)"):
        with_caller(stub.url, tmp_path, choose)


def test_refused_parameters_are_left_out_and_remembered(stub, tmp_path):
    def refuses(body: dict[str, Any]) -> str | None:
        for name in ("max_tokens", "temperature", "seed"):
            if name in body:
                return f"Unsupported parameter: '{name}' is not supported with this model."
        return None

    stub.refuses = refuses
    found = with_caller(stub.url, tmp_path, lambda caller: preflight(caller, "stub", Wants(9)))
    assert found == Capabilities("max_completion_tokens", 9, temperature=False, seed=False)
    assert found.request("stub", [], 0) == {"model": "stub", "messages": [], "max_completion_tokens": 9}
    seen = stub.seen.total()

    async def again(caller: Caller) -> Capabilities | None:
        return recall(caller, "stub", Wants(9))

    assert with_caller(stub.url, tmp_path, again) == found
    assert stub.seen.total() == seen


def test_refusal_that_names_nothing_is_told(stub, tmp_path):
    stub.refuses = lambda body: "the model is on holiday"
    with pytest.raises(UserError, match="on holiday"):
        with_caller(stub.url, tmp_path, lambda caller: preflight(caller, "stub", Wants(9)))


def test_model_that_reasons_gets_room(stub, tmp_path):
    stub.finish = "length"
    stub.judge = lambda first, second: ""
    found = with_caller(stub.url, tmp_path, lambda caller: preflight(caller, "stub", Wants(9)))
    assert found.limit == 9, "a long answer alone is no reasoning"
    stub.ready = "<think>The user wants"
    found = with_caller(stub.url, tmp_path / "b", lambda caller: preflight(caller, "stub", Wants(9)))
    assert (found.limit, found.low_effort) == (4096, True)
    assert found.request("stub", [], 0)["reasoning_effort"] == "low"


def test_retired_and_retiring_models(stub, tmp_path):
    stub.models = [{"id": "old", "shutdown_date": soon(-1)}, {"id": "ageing", "shutdown_date": soon(9)}]
    with pytest.raises(UserError, match="was shut down on"):
        with_caller(stub.url, tmp_path, lambda caller: preflight(caller, "old", Wants(9)))
    found = with_caller(stub.url, tmp_path, lambda caller: preflight(caller, "ageing", Wants(9)))
    assert "in 9 days" in (retirement("ageing", found) or "")


def test_server_without_a_list_of_models(stub, tmp_path):
    stub.models = None
    assert with_caller(stub.url, tmp_path, lambda caller: preflight(caller, "any", Wants(9))).limit == 9
    with pytest.raises(UserError, match="name one with -j"):
        with_caller(stub.url, tmp_path, choose)


def test_nobody_there(stub, tmp_path):
    url = stub.url
    stub.close()
    with pytest.raises(MachineError, match="cannot be reached"):
        with_caller(url, tmp_path, lambda caller: preflight(caller, "any", Wants(9)))


def test_hosted_judge_needs_a_key(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "  ")
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        with_caller(OPENAI, tmp_path, choose)


def test_model_that_reasons_has_no_weights(stub, tmp_path):
    """One token is too little for it: it says so with a refusal, or with an empty reply."""
    wants = Wants(1, logprobs=True, schema=True)
    stub.refuses = lambda body: (
        "Could not finish the message because max_tokens or model output limit was reached"
        if body["max_tokens"] < 1000
        else None
    )
    found = with_caller(stub.url, tmp_path, lambda caller: preflight(caller, "stub", wants))
    assert (found.limit, found.logprobs, found.low_effort) == (4096, 0, True)
    stub.refuses = lambda body: None
    stub.ready = "<think>The user"
    found = with_caller(stub.url, tmp_path / "b", lambda caller: preflight(caller, "stub", wants))
    assert (found.limit, found.logprobs, found.low_effort) == (4096, 0, True)


def test_fewer_log_probabilities_where_twenty_are_too_many(stub, tmp_path):
    stub.weigh = lambda first, second: {"1": 1.0}
    stub.refuses = lambda body: "top_logprobs must be at most 5" if body.get("top_logprobs", 0) > 5 else None
    found = with_caller(
        stub.url, tmp_path, lambda caller: preflight(caller, "stub", Wants(1, logprobs=True, schema=True))
    )
    assert (found.limit, found.logprobs, found.json_schema) == (1, 5, False)


@pytest.mark.parametrize("structured", [True, False])
def test_schema_that_is_ignored_is_not_used(stub, tmp_path, structured):
    if structured:
        stub.structured = lambda *texts: {}
    found = with_caller(stub.url, tmp_path, lambda caller: preflight(caller, "stub", Wants(99, schema=True)))
    assert found.json_schema is structured
