"""A whole run against a server with faults: nothing paid for is lost, asked again, or counted as what it is not."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from prospect.errors import MachineError, UserError
from prospect.judge.calls import Interrupted, Patience
from prospect.judge.ledger import Ledger
from prospect.judge.options import parse
from prospect.judge.stage import compare
from tests.judge.bill import bill

ROOT = Path(__file__).parents[2]
QUICK = Patience(base=0.002, cap=0.02)
GAMES = 80


def run(stub: Any, samples: Path, *flags: str, patience: Patience = QUICK) -> tuple[int, dict[str, Any]]:
    """compare.py's work in this process: the exit code and the last line of its results."""
    options = parse(arguments(stub, samples, *flags))
    code = compare(options, patience)
    return code, json.loads(options.results.read_text().splitlines()[-1])


def arguments(stub: Any, samples: Path, *flags: str) -> list[str]:
    base = samples.parent
    given = ["-f", str(samples), "-j", "stub", "--base-url", stub.url, "-r", str(base / "result.jsonl")]
    return [*given, "--cache", str(base / "cache"), "--timeout", "10", *flags]


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """What must be the same however bumpy the way was."""
    names = ("total", "win_rate", "ci95", "ties", "inconsistent", "unparsed", "failed", "half", "position", "bounds")
    return {name: result[name] for name in names} | {side: result[side]["wins"] for side in ("candidate", "baseline")}


def some_faults(key: str, attempt: int) -> str | None:
    """Three of ten requests go wrong at first, each in one of the ways that are not the judge's verdict."""
    kinds = ("429", "500", "503", "hang", "cut", "reset", "html", "json", "empty")
    number = int(hashlib.sha256(f"{key} {attempt}".encode()).hexdigest()[:8], 16)
    kind = kinds[number // 10 % 9]
    if number % 10 >= 3 or attempt >= (1 if kind in ("html", "json", "empty") else 2):
        return None
    return kind


def test_result_and_the_three_lines(stub, samples, capsys):
    code, result = run(stub, samples)
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert result["total"] == 40
    assert result["unparsed"] == 2
    assert result["candidate"]["wins"] + result["baseline"]["wins"] + result["ties"] + 2 == 40
    assert result["inconsistent"] == result["half"] == result["failed"] == 0
    assert result["position"]["flip_rate"] == 0.0
    assert result["ties"] > 0
    assert result["spent"]["games"] == result["spent"]["asked"] == GAMES
    assert result["spent"]["prompt_tokens"] == 100 * GAMES
    assert result["judge"] == "stub"
    assert result["judge_answered_as"] == ["stub-v1"]
    low, high = result["bounds"]
    assert low < result["win_rate"] < high
    assert high - low == pytest.approx(2 / 40)
    assert {
        "date", "total", "seed", "exp_name", "judge", "candidate", "baseline", "config",
        "win_rate", "ci95", "ties", "unparsed", "failed", "position",
    } <= result.keys()  # fmt: skip
    assert "win rate" in lines[-3]
    assert "length ratio" in lines[-2]
    assert "2 unparsed, 0 failed" in lines[-1]
    assert set(stub.games.values()) == {1}
    assert len(stub.games) == GAMES


def test_second_run_costs_nothing_and_needs_no_server(stub, samples):
    first = run(stub, samples)
    url, bill = stub.url, sum(stub.bill.values())
    stub.close()
    assert figures(run(stub, samples)[1]) == figures(first[1])
    assert stub.url == url
    assert sum(stub.bill.values()) == bill


def test_faults_change_nothing(stub, samples, tmp_path):
    _, smooth = run(stub, samples, "--cache", str(tmp_path / "smooth"))
    stub.bill.clear()
    stub.seen.clear()
    stub.faults = some_faults
    _, bumpy = run(stub, samples, "--timeout", "0.5")
    assert figures(bumpy) == figures(smooth)
    tally = bumpy["spent"]["tally"]
    assert min(tally["refused"], tally["lost"], tally["garbled"]) > 0
    assert tally["answered"] == GAMES
    assert tally["unseen"] == 0
    assert sum(stub.games.values()) == tally["answered"] + tally["lost"] + tally["garbled"]


def test_always_first_is_half_with_a_warning(stub, samples, capsys):
    stub.judge = lambda first, second: "Response 1"
    _, result = run(stub, samples)
    assert result["win_rate"] == 0.5
    assert result["inconsistent"] == result["ties"] == 40
    assert result["position"]["candidate_second_minus_first"] == -1.0
    assert result["position"]["flip_rate"] == 1.0
    assert result["position"]["ci95"][1] < 0
    assert "prefers the answer shown first" in capsys.readouterr().err


def test_content_oracle_wins_all(stub, samples, capsys):
    stub.judge = lambda first, second: f"Response {1 if first.startswith('Policy') else 2}"
    _, result = run(stub, samples)
    assert result["win_rate"] == 1.0
    assert 0.9 < result["ci95"][0] < result["ci95"][1] == 1.0
    assert result["ci95_method"] == "exact"
    assert result["position"]["candidate_second_minus_first"] == 0.0
    assert "prefers" not in capsys.readouterr().err


@pytest.mark.parametrize("orders", ["both", "random"])
def test_swapped_sides_give_the_rest(stub, samples, orders):
    _, one = run(stub, samples, "--orders", orders)
    bill = sum(stub.bill.values())
    _, other = run(stub, samples, "--orders", orders, "-ck", "chosen", "-bk", "policy")
    assert other["win_rate"] == pytest.approx(1 - one["win_rate"])
    assert (other["candidate"]["wins"], other["baseline"]["wins"]) == (
        one["baseline"]["wins"],
        one["candidate"]["wins"],
    )
    assert sum(stub.bill.values()) == bill, "the same games, so the ledger has them"


def test_another_prompt_is_asked_anew(stub, samples, tmp_path):
    run(stub, samples)
    shipped = ROOT / "prospect" / "judge" / "prompts" / "halos.yaml"
    edited = tmp_path / "edited.yaml"
    edited.write_text(shipped.read_text().replace("helpful, harmless and concise", "concise"))
    _, result = run(stub, samples, "--prompt", str(edited))
    assert result["spent"]["asked"] == GAMES
    assert sum(stub.games.values()) == 2 * GAMES


@pytest.mark.parametrize("fault", ["401", "403", "404", "quota"])
def test_hopeless_refusal_stops_at_once(stub, samples, fault):
    stub.faults = lambda key, attempt: fault
    with pytest.raises(
        UserError, match={"404": "does not serve -j", "quota": "pay first"}.get(fault, "OPENAI_API_KEY")
    ):
        run(stub, samples)
    assert 0 < sum(n for key, n in stub.seen.items() if not key.startswith("probe")) <= 8
    assert not sum(stub.games.values())
    assert not (samples.parent / "result.jsonl").exists()


def test_refusal_of_one_request_is_a_failed_game(stub, samples):
    def refuses(body: dict[str, Any]) -> str | None:
        return "too long" if "Question 3?" in body["messages"][-1]["content"] else None

    stub.refuses = refuses
    code, result = run(stub, samples, "--max-failed", "0.01")
    assert (code, result["failed"], result["unparsed"]) == (3, 1, 2)
    stub.refuses = lambda body: None
    code, result = run(stub, samples, "--max-failed", "0.01")
    assert (code, result["failed"], result["spent"]["asked"]) == (0, 0, 2), "an error is no verdict: asked again"


def test_one_lost_order_is_half(stub, samples):
    def refuses(body: dict[str, Any]) -> str | None:
        text = body["messages"][-1]["content"]
        return "no" if "Question 3?" in text and text.index("Policy") < text.index("Chosen") else None

    stub.refuses = refuses
    _, result = run(stub, samples)
    assert (result["half"], result["failed"]) == (1, 0)
    assert result["position"]["pairs"] == 40 - 2 - 1


def test_server_that_keeps_failing_ends_the_run(stub, samples):
    stub.faults = lambda key, attempt: "500"
    with pytest.raises(MachineError, match="3 requests in a row failed"):
        run(stub, samples, patience=Patience(tries=2, base=0.001, failures_in_a_row=3))


def test_garbled_replies_are_asked_for_once_more_and_by_the_next_command(stub, samples, capsys):
    stub.faults = lambda key, attempt: "html"
    code, result = run(stub, samples, "-mc", "5")
    assert (code, result["unparsed"], result["failed"]) == (3, 0, 5)
    assert "without a chat completion: a page of HTML" in capsys.readouterr().err
    assert set(stub.games.values()) == {2}
    stub.faults = lambda key, attempt: None
    code, result = run(stub, samples, "-mc", "5")
    assert (code, result["failed"]) == (0, 0)
    assert set(stub.games.values()) == {3}


def test_cut_off_replies_are_no_verdicts(stub, samples):
    stub.finish = "length"
    code, result = run(stub, samples)
    assert (code, result["truncated"], result["unparsed"], result["win_rate"]) == (3, 40, 0, None)
    assert result["bounds"] == [0.0, 1.0]


def test_limit_of_requests_stops_and_resumes(stub, samples):
    with pytest.raises(Interrupted, match="--max-requests 30"):
        run(stub, samples, "--max-requests", "30")
    assert sum(stub.bill.values()) == 30
    _, result = run(stub, samples)
    assert result["total"] == 40
    assert set(stub.games.values()) == {1}


def test_too_many_requests_narrow_the_window(stub, samples):
    stub.latency = 0.01
    stub.faults = lambda key, attempt: "429" if stub.at_once > 3 else None
    _, result = run(stub, samples, "--concurrency", "16")
    assert result["failed"] == 0
    assert stub.seen.total() < 3 * GAMES
    assert set(stub.games.values()) == {1}


def test_many_are_under_way_at_once(stub, tmp_path):
    """How long that takes is bench/calls.py's to say."""
    rows = [{"prompt": f"Q{i}", "chosen": f"a{i}", "policy": f"bb{i}"} for i in range(60)]
    file = tmp_path / "many.json"
    file.write_text(json.dumps(rows))
    stub.latency = 0.1
    run(stub, file, "--concurrency", "32")
    assert 8 < stub.most_at_once <= 32


def test_several_judges_are_a_jury(stub, samples, capsys):
    stub.judge = lambda first, second: f"Response {1 if first.startswith('Policy') else 2}"
    run(stub, samples, "-j", "longest", "-j", "random")
    judges = [json.loads(line)["judge"] for line in (samples.parent / "result.jsonl").read_text().splitlines()]
    assert judges == ["stub", "longest", "random"]
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0].startswith("jury of 3: win rate ")
    assert "stub and longest agree on" in last[1]


def test_dry_run_sends_nothing(stub, samples, capsys):
    options = parse(arguments(stub, samples, "--dry-run"))
    assert compare(options) == 0
    assert "80 games; all of them: about" in capsys.readouterr().out
    assert not stub.seen
    run(stub, samples, "-mc", "10")
    capsys.readouterr()
    compare(options)
    assert "80 games; 20 of them are in the ledger" in capsys.readouterr().out


def command(stub: Any, samples: Path, *flags: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "compare.py"), *arguments(stub, samples, *flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def wait_until(condition: Any, process: subprocess.Popen[str], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)


def test_killed_runs_pay_for_nothing_twice(stub, samples, tmp_path):
    _, smooth = run(stub, samples, "--cache", str(tmp_path / "smooth"))
    for counter in (stub.bill, stub.charged):
        counter.clear()
    stub.latency = 0.03
    for share in (1, 2):
        process = command(stub, samples)
        wait_until(lambda target=25 * share: sum(stub.games.values()) >= target, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(2 * stub.latency)  # what the killed process had under way is completed and billed
    process = command(stub, samples)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    result = json.loads((samples.parent / "result.jsonl").read_text().splitlines()[-1])
    assert figures(result) == figures(smooth)
    tally = result["spent"]["tally"]
    assert tally["answered"] == GAMES
    assert len(stub.games) == GAMES
    found = bill(stub, samples.parent / "cache")
    assert result["spent"]["maybe_billed_unseen"] == tally["unseen"] == found.maybe_billed
    assert tally["unseen"] <= 16, "only what was under way at a kill may be paid for twice"
    assert found.billed == sum(stub.games.values()) - GAMES
    assert found.not_counted == found.ambiguous == 0


def test_ctrl_c_waits_for_what_is_under_way(stub, samples):
    stub.latency = 0.1
    process = command(stub, samples)
    wait_until(lambda: sum(stub.games.values()) >= 10, process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 4, output
    assert "the same command continues" in output
    billed = sum(stub.games.values())
    assert billed < GAMES
    _, result = run(stub, samples)
    assert result["spent"]["asked"] == GAMES - billed
    assert result["spent"]["maybe_billed_unseen"] == 0


def test_two_processes_share_a_ledger(stub, samples):
    stub.latency = 0.03
    both = [command(stub, samples), command(stub, samples)]
    for process in both:
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 0, output
    assert set(stub.games.values()) == {1}
    assert len(stub.games) == GAMES
    one, other = map(json.loads, (samples.parent / "result.jsonl").read_text().splitlines())
    assert figures(one) == figures(other)
    assert one["spent"]["asked"] + other["spent"]["asked"] == GAMES


def test_planted_bug_a_ledger_that_forgets_is_noticed(stub, samples, monkeypatch):
    monkeypatch.setattr(Ledger, "answers", lambda self, keys: {})
    for _ in range(2):
        run(stub, samples, "-mc", "5")
    with pytest.raises(AssertionError):
        assert set(stub.games.values()) == {1}
