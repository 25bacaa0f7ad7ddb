"""What a run will cost, what it has cost, and where it stops."""

from __future__ import annotations

import json
import re
import sys
from datetime import date

import pytest
import yaml

from prospect.errors import UserError
from prospect.judge import cost
from prospect.judge.calls import Interrupted
from prospect.judge.cost import Meter, Price, price_of
from prospect.judge.options import Asking, parse
from prospect.judge.reply import read
from prospect.judge.stage import compare
from tests.judge.test_run import GAMES, arguments, run


def body(prompt_tokens: int = 100, completion_tokens: int = 10, cached: int = 0) -> bytes:
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return json.dumps({"choices": [{"message": {"content": "1"}}], "usage": usage}).encode()


def told_usd(capsys: pytest.CaptureFixture[str]) -> float:
    found = re.search(r"about \$([0-9.e-]+)", capsys.readouterr().out)
    assert found is not None
    return float(found[1])


def test_prices():
    table = yaml.safe_load(cost._TABLE.read_text())
    assert table["date"] <= date.today()
    assert all(0 < cached <= fresh < out for fresh, cached, out in table["models"].values())
    known = price_of(Asking(), "gpt-5.6-luna")
    assert known is not None
    assert price_of(Asking(), "gpt-5.6-luna-2026-07-09") == known, "a dated snapshot costs what its model costs"
    assert price_of(Asking(), "somebody/else") is None
    half = price_of(Asking(batch=True), "gpt-5.6-luna")
    assert half is not None
    assert half.tokens_out == known.tokens_out / 2
    reply = read(body(100, 10, cached=40))
    assert reply is not None
    assert Price(3.0, 1.0, 7.0).of(reply.usage) == 60 * 3.0 + 40 * 1.0 + 10 * 7.0


@pytest.mark.parametrize("ratio", [0.15, 0.25, 0.5])
def test_dry_run_with_a_known_ratio_is_within_a_tenth(stub, samples, capsys, ratio):
    stub.tokens_a_character, stub.reply_tokens = ratio, 4
    flags = ("--price", "500,2000", "--token-ratio", str(ratio))
    compare(parse(arguments(stub, samples, *flags, "--dry-run")))
    before = told_usd(capsys)
    assert not stub.seen
    _, result = run(stub, samples, *flags)
    assert result["spent"]["usd"] == pytest.approx(before, rel=0.1)


def test_dry_run_learns_the_ratio_from_earlier_replies(stub, samples, capsys):
    stub.tokens_a_character, stub.reply_tokens = 0.37, 60
    run(stub, samples, "-mc", "10")
    capsys.readouterr()
    compare(parse(arguments(stub, samples, "--price", "500,2000", "--dry-run")))
    before = told_usd(capsys)
    _, result = run(stub, samples, "--price", "500,2000")
    assert result["spent"]["usd_now"] == pytest.approx(before, rel=0.1)
    assert result["spent"]["usd"] == pytest.approx(before * 80 / 60, rel=0.1)


def test_without_any_knowledge_the_ratio_of_real_runs_counts(stub, samples, capsys):
    """Real judgments: 311 tokens for a template of 1,330 characters, 0.2 a character of the texts."""
    content = json.loads(samples.read_text())
    for row in content["samples"]:
        row["policy"] += " word" * 500
    samples.write_text(json.dumps(content))
    stub.tokens_a_character = 0.2
    compare(parse(arguments(stub, samples, "--price", "500,2000", "--dry-run")))
    before = told_usd(capsys)
    assert run(stub, samples, "--price", "500,2000")[1]["spent"]["usd"] == pytest.approx(before, rel=0.1)


def test_limit_of_dollars_stops_and_resumes(stub, samples):
    stub.tokens_a_character = 0.25
    with pytest.raises(Interrupted, match=r"--max-usd 0\.006 reached; the same command continues") as stopped:
        run(stub, samples, "--price", "1,1", "--max-usd", "0.006", "-y")
    assert stopped.value.exit_code == 4
    billed = sum(stub.games.values())
    assert 10 < billed < GAMES
    tokens = [round(0.25 * sum(len(m["content"]) for m in b["messages"])) + 3 for b in stub.requests[1:]]
    assert sum(tokens) * 1e-6 <= 0.006
    _, result = run(stub, samples, "--price", "1,1")
    assert result["spent"]["asked"] == GAMES - billed
    assert set(stub.games.values()) == {1}


def test_limit_of_dollars_needs_a_price(stub, samples):
    with pytest.raises(UserError, match="no price is known for stub"):
        run(stub, samples, "--max-usd", "1")
    assert not sum(stub.games.values())


def test_meter_estimates_anew_after_twenty_replies():
    price = Price(1e-3, 1e-3, 1e-3)
    meter = Meter(price, dict.fromkeys(map(str, range(100)), 0.05), None)
    for i in range(19):
        assert meter.fits(str(i))
        meter.landed(str(i), body(100, 10), billed=False)
    assert meter.total == pytest.approx(5.0)
    meter.fits("19")
    meter.landed("19", body(100, 10), billed=False)
    assert meter.total == pytest.approx(11.0)
    assert meter.note() == "$2.2 of about $11"


def test_meter_counts_what_may_have_been_billed():
    meter = Meter(Price(1e-3, 1e-3, 1e-3), {"a": 0.6, "b": 0.6}, 1.0)
    assert meter.fits("a")
    assert not meter.fits("b"), "the first is still under way"
    meter.landed("a", None, billed=False)
    assert meter.fits("b")
    meter.landed("b", None, billed=True)
    assert not meter.fits("a")


@pytest.mark.parametrize(("answer", "goes_on"), [("y", True), ("", False), ("n", False)])
def test_a_person_at_a_terminal_is_asked(stub, samples, monkeypatch, answer, goes_on):
    asked: list[str] = []

    def reply(text: str) -> str:
        asked.append(text)
        return answer

    monkeypatch.setattr("builtins.input", reply)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    if goes_on:
        run(stub, samples, "--price", "1000,1000")
    else:
        with pytest.raises(Interrupted, match="nothing was asked"):
            run(stub, samples, "--price", "1000,1000")
        assert not sum(stub.games.values())
        run(stub, samples, "--price", "1000,1000", "-y")
    assert len(asked) == 1
    assert "80 requests, about $" in asked[0]
