"""Prospect and TRL in turn on the same rows: ratios of speed, processor time and memory, with intervals.

python bench/compare.py --task dpo --model DIR --data FILE.jsonl --pairs 5 --steps 10 --peer defaults --out legs.jsonl

Each pair is one process of Prospect, then one of TRL (bench/run.py), with the same environment. ``--peer defaults``
is TRL as it comes (recomputation, live reference model), ``--peer best`` without recomputation and with reference
values beforehand. A leg is void, and run again up to ``--repeats`` times, when other processes used more than
FOREIGN cores or its processor time is more than DEVIATION off the median of its framework's legs. The comparison is
void when the two disagree on the first step's loss or gradient norm, or on the number of tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

FOREIGN = 0.1  # cores
DEVIATION = 0.1  # of the median
AGREEMENT = 1e-3  # of the first step's loss, and of its gradient norm (relative)
OWN = {"--fw": "prospect", "--ckpt": "0", "--pre": "1"}
PEERS = {
    "defaults": {"--fw": "trl", "--ckpt": "1", "--pre": "0"},
    "best": {"--fw": "trl", "--ckpt": "0", "--pre": "1"},
}
_ROOT = Path(__file__).resolve().parents[1]
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**35)}


class Disagreement(Exception):
    """The two frameworks did not compute the same thing."""


@dataclass(frozen=True, slots=True)
class Leg:
    """What one process of bench/run.py measured."""

    fw: str
    tok_s: float
    cpu: float
    wall: float
    foreign: float
    peak: float
    tok: int
    ref_cpu_share: float  # CPU-seconds that the timed steps' examples took in the reference pass
    loss: float
    grad_norm: float

    @classmethod
    def of(cls, line: dict[str, Any]) -> Leg:
        """From its JSON line."""
        return cls(**{name: line[name] for name in cls.__slots__})

    def is_void(self, others: Seq[Leg]) -> bool:
        """Whether other processes, or something unknown, disturbed it; ``others``: all legs of its framework."""
        typical = median(leg.cpu for leg in others)
        return self.foreign > FOREIGN or abs(self.cpu - typical) > DEVIATION * typical


@dataclass(frozen=True, slots=True)
class Interval:
    """A median with its bootstrap 90% interval."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, ratios: Seq[float], seed: int = 0) -> Interval:
        """Of the median of at least one ratio."""
        drawn = np.random.default_rng(seed).choice(np.asarray(ratios), (10_000, len(ratios)))
        low, high = np.quantile(np.median(drawn, axis=1), [0.05, 0.95])
        return cls(float(low), median(ratios), float(high))

    def __str__(self) -> str:
        return f"{self.middle:.2f} [{self.low:.2f}, {self.high:.2f}]"


def agree(own: Leg, peer: Leg) -> None:
    """Raises Disagreement where the frameworks differ in what they computed."""
    if own.tok != peer.tok:
        raise Disagreement(f"tokens: {own.tok} and {peer.tok}")
    if abs(own.loss - peer.loss) > AGREEMENT:
        raise Disagreement(f"loss of step 1: {own.loss} and {peer.loss}")
    if abs(own.grad_norm - peer.grad_norm) > AGREEMENT * peer.grad_norm:
        raise Disagreement(f"gradient norm of step 1: {own.grad_norm} and {peer.grad_norm}")


def table(pairs: Seq[tuple[Leg, Leg]]) -> str:
    """All pairs and the ratios own : peer, in Markdown. Wall time counts in undisturbed pairs only."""
    legs = [[pair[side] for pair in pairs] for side in (0, 1)]
    clean = [not any(leg.is_void(legs[side]) for side, leg in enumerate(pair)) for pair in pairs]
    lines = [
        "| pair | tok/s | TRL | ratio | CPU-s | TRL | ratio | peak MB | TRL | ratio | foreign | TRL | clean |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for number, ((own, peer), undisturbed) in enumerate(zip(pairs, clean, strict=True), start=1):
        lines.append(
            f"| {number} | {own.tok_s:.0f} | {peer.tok_s:.0f} | {own.tok_s / peer.tok_s:.2f} "
            f"| {own.cpu:.1f} | {peer.cpu:.1f} | {peer.cpu / own.cpu:.2f} "
            f"| {own.peak:.0f} | {peer.peak:.0f} | {own.peak / peer.peak:.2f} "
            f"| {own.foreign:.2f} | {peer.foreign:.2f} | {'yes' if undisturbed else 'no'} |"
        )
    walls = [own.tok_s / peer.tok_s for (own, peer), ok in zip(pairs, clean, strict=True) if ok]
    first_epoch = [(peer.cpu + peer.ref_cpu_share) / (own.cpu + own.ref_cpu_share) for own, peer in pairs]
    lines += [
        "",
        "Median and bootstrap 90% interval over pairs:",
        f"- tokens/s, {len(walls)} clean pairs: {Interval.of(walls) if walls else 'no clean pair: no claim'}",
        f"- CPU-seconds, all pairs: {Interval.of([peer.cpu / own.cpu for own, peer in pairs])}",
        f"- CPU-seconds with the reference pass (one epoch), all pairs: {Interval.of(first_epoch)}",
        f"- peak resident memory, all pairs: {Interval.of([own.peak / peer.peak for own, peer in pairs])}",
    ]
    return "\n".join(lines)


def run_leg(options: dict[str, str], keep_memory: bool, out: Path | None) -> Leg:
    """One process of bench/run.py. Raises CalledProcessError when it fails, after showing what it said."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "OMP_WAIT_POLICY": "PASSIVE",
        **(_KEEP_MEMORY if keep_memory else {}),
    }
    command = [sys.executable, str(_ROOT / "bench" / "run.py"), *(x for item in options.items() for x in item)]
    done = subprocess.run(command, env=environment, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        done.check_returncode()
    if out is not None:
        with out.open("a", encoding="utf-8") as lines:
            lines.write(done.stdout)
    leg = Leg.of(json.loads(done.stdout))
    print(f"{leg.fw}: {leg.tok_s:.0f} tok/s, {leg.cpu:.1f} CPU-s, foreign {leg.foreign:.2f}", file=sys.stderr)
    return leg


def main() -> int:
    """Run all legs and print the table; 1 when the frameworks disagree."""
    arguments, common = _parsed(sys.argv[1:])
    budget = arguments.tokens_per_microbatch
    own = OWN | ({"--tokens-per-microbatch": budget} if budget else {})
    sides = [common | own, common | PEERS[arguments.peer]]

    def measure(side: int) -> Leg:
        return run_leg(sides[side], arguments.keep_memory, arguments.out)

    legs: list[list[Leg]] = [[], []]
    try:
        for _ in range(arguments.pairs):
            for side in (0, 1):
                legs[side].append(measure(side))
            agree(legs[0][-1], legs[1][-1])
        for _ in range(arguments.repeats):
            for side in (0, 1):
                for i, leg in enumerate(legs[side]):
                    if leg.is_void(legs[side]):
                        legs[side][i] = measure(side)
    except Disagreement as problem:
        print(f"void: Prospect and TRL differ in {problem}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError:
        return 1
    print(table(list(zip(*legs, strict=True))))
    return 0


def _parsed(given: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Own arguments, and those that bench/run.py gets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2, help="rounds in which void legs are run again")
    parser.add_argument("--peer", choices=PEERS, default="defaults")
    parser.add_argument("--tokens-per-microbatch", help="Prospect's budget; default: its own")
    parser.add_argument("--keep-memory", action="store_true", help="tell glibc to keep freed memory, on both sides")
    parser.add_argument("--out", type=Path, help="file that every leg's line is added to")
    shared = parser.add_argument_group("passed to bench/run.py")
    for name, default in _SHARED.items():
        shared.add_argument(name, default=default, required=default is None)
    found = parser.parse_args(given)
    names = {name: name.lstrip("-").replace("-", "_") for name in _SHARED}
    return found, {name: str(getattr(found, attribute)) for name, attribute in names.items()}


_SHARED: dict[str, str | None] = {
    "--task": None,
    "--model": None,
    "--data": None,
    "--max-length": "1024",
    "--mb": "4",
    "--steps": "10",
    "--warm": "2",
    "--dtype": "float32",
    "--seed": "1",
}

if __name__ == "__main__":
    sys.exit(main())
