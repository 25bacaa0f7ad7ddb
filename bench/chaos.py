"""A judge run through a server's every fault and many kill -9, against the same run with neither.

    python bench/chaos.py [--comparisons 2000] [--kills 20] [--processes 3]

The server keeps its own bill. Of its requests 10% get status 429, 5% a status 5xx, 3% no reply in time, 2% lose the
reply after it was completed, 3% get garbage, 0.5% a reset in the middle of the reply; 3% of the games have a reply
without a verdict and 1% a null one, in both runs. Several compare.py work on one ledger; each is killed at a random
moment and started anew, until all kills are used up; then two at once finish.

Every attempt carries an id that its row in the ledger has, too. By it the ledger's calls without a reply ("maybe
billed") are told apart by what the server's log says of them: billed; received but not billed (its client was killed
meanwhile); never received (killed between the row and the wire). Prints one JSON line and exits with 1 where a received
answer was lost or asked again, the totals differ, a billed call is neither answered nor counted as maybe billed, or,
without kills, the ledger's figure is not what was billed beyond the received answers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from tests.judge.bill import Bill, bill  # noqa: E402
from tests.judge.conftest import Stub  # noqa: E402

FAULTS = (
    (0.10, ("429",)),
    (0.05, ("500", "502", "503", "529")),
    (0.03, ("hang",)),
    (0.02, ("reset",)),
    (0.03, ("html", "json", "empty")),
    (0.005, ("torn",)),
)
_SAME = ("total", "win_rate", "ci95", "ties", "inconsistent", "half", "truncated", "refused", "unparsed", "failed")
_FLAGS = ("-j", "stub", "--concurrency", "16")


def fault(key: str, attempt: int) -> str | None:
    """What goes wrong with a request: drawn from its key and attempt, garbage at most once a key."""
    digest = hashlib.sha256(f"{key} {attempt}".encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    for rate, kinds in FAULTS:
        if share < rate:
            kind = kinds[digest[4] % len(kinds)]
            return kind if attempt < 5 and (kind not in FAULTS[4][1] or attempt == 0) else None
        share -= rate
    return None


def verdict(first: str, second: str) -> str | None:
    """The stub's judgment: by length, but 3% say nothing of use and 1% nothing at all."""
    share = hashlib.sha256(f"{first}\0{second}".encode()).digest()[0] / 256
    if share < 0.01:
        return None
    if share < 0.04:
        return "Hard to say, both have their merits."
    return "It's a tie." if len(first) == len(second) else f"Response {1 if len(first) > len(second) else 2}"


class Play:
    """One folder with samples, a ledger and results; one server."""

    def __init__(self, folder: Path, comparisons: int, latency: float, timeout: float) -> None:
        self.folder, self.comparisons, self.timeout = folder, comparisons, timeout
        rng = random.Random(0)
        rows = [
            {
                "prompt": f"Question {i}?",
                "chosen": f"Chosen {i} {'word ' * rng.randint(1, 9)}.",
                "policy": f"Policy {i} {'word ' * rng.randint(1, 9)}!",
            }
            for i in range(comparisons // 2)  # two orders each
        ]
        (folder / "samples.json").write_text(json.dumps({"config": {"exp_name": "chaos"}, "samples": rows}))
        self.stub = Stub()
        self.stub.judge, self.stub.latency, self.stub.hang = verdict, latency, 1.25 * timeout

    def start(self, name: str) -> subprocess.Popen[str]:
        """One compare.py on the ledger ``name``."""
        files = ("-f", "samples.json", "-r", f"{name}.jsonl", "--cache", name, "--base-url", self.stub.url)
        environment = {key: value for key, value in os.environ.items() if key != "OPENAI_API_KEY"}
        return subprocess.Popen(
            [sys.executable, str(ROOT / "compare.py"), *files, *_FLAGS, "--timeout", str(self.timeout)],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, processes: list[subprocess.Popen[str]]) -> list[int]:
        """Their exit codes."""
        outputs = [process.communicate()[0] for process in processes]
        for process, output in zip(processes, outputs, strict=True):
            if process.returncode not in (0, 3):
                print(output, file=sys.stderr)
        return [process.returncode for process in processes]

    def result(self, name: str) -> dict[str, Any]:
        """The last line of the results."""
        lines = (self.folder / f"{name}.jsonl").read_text().splitlines()
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    def answered(self, name: str) -> Counter[str]:
        """How many answers the ledger has for each game."""
        with sqlite3.connect(self.folder / name / "ledger.sqlite3") as db:
            rows = db.execute("SELECT key, COUNT(*) FROM calls WHERE fate = 'answered' GROUP BY key").fetchall()
        return Counter(dict(rows))

    def kill_often(self, name: str, kills: int, processes: int) -> None:
        """Kill one of several processes at a time, each time at another moment, and start another in its place."""
        rng = random.Random(1)
        running = [self.start(name) for _ in range(processes)]
        for number in range(kills):
            goal = (number + 1) * 0.9 * self.comparisons / (kills + 1)
            end = time.monotonic() + 120
            while len(self.stub.games) < goal and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.2))
            victim = running.pop(rng.randrange(len(running)))
            victim.send_signal(signal.SIGKILL)
            victim.communicate()
            running.append(self.start(name))
        self.finish(running)
        time.sleep(self.stub.hang + self.stub.latency)  # what was under way at a kill is completed and billed


def chaos(comparisons: int, kills: int, processes: int, latency: float = 0.05, timeout: float = 2.0) -> dict[str, Any]:
    """The whole play; what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        play = Play(Path(folder), comparisons, latency, timeout)
        try:
            play.finish([play.start("smooth")])
            smooth = play.result("smooth")
            play.stub.bill.clear()
            play.stub.seen.clear()
            play.stub.received.clear()
            play.stub.charged.clear()
            play.stub.faults = fault
            started = time.monotonic()
            play.kill_often("bumpy", kills, processes)
            codes = play.finish([play.start("bumpy"), play.start("bumpy")])
            return _account(play, smooth, codes, time.monotonic() - started)
        finally:
            play.stub.close()


def _account(play: Play, smooth: dict[str, Any], codes: list[int], seconds: float) -> dict[str, Any]:
    bumpy = play.result("bumpy")
    tally = bumpy["spent"]["tally"]
    answers = play.answered("bumpy")
    games = sum(play.stub.games.values())
    received = tally["answered"] + tally["garbled"]
    unseen = bill(play.stub, play.folder / "bumpy")
    return {
        "comparisons": smooth["spent"]["games"],
        "seconds": round(seconds, 1),
        "exit_codes": codes,
        "same_totals": all(bumpy[name] == smooth[name] for name in _SAME),
        "lost": smooth["spent"]["games"] - tally["answered"],
        "duplicated": sum(n - 1 for n in answers.values() if n > 1),
        "billed": games,
        "received": received,
        "billed_beyond": games - received,
        "maybe_billed": bumpy["spent"]["maybe_billed_unseen"],
        "unseen": asdict(unseen),
        "tally": tally,
    }


def good(found: dict[str, Any], kills: int) -> bool:
    """Whether nothing was lost, doubled or changed, and the ledger accounts for the bill call by call."""
    whole = found["same_totals"] and not found["lost"] and not found["duplicated"]
    unseen = Bill(**found["unseen"])
    exact = unseen.maybe_billed == found["maybe_billed"] and unseen.billed == found["billed_beyond"]
    accounted = exact and not unseen.not_counted and not unseen.ambiguous
    return bool(whole and accounted and (kills or found["maybe_billed"] == found["billed_beyond"]))


def main() -> int:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=3)
    given = parser.parse_args()
    found = chaos(given.comparisons, given.kills, given.processes)
    print(json.dumps(found))
    return 0 if good(found, given.kills) else 1


if __name__ == "__main__":
    sys.exit(main())
