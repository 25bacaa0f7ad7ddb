"""Prospect and its peers in turn on the same rows: ratios of speed, processor time and memory, with intervals.

python bench/compare.py --task dpo --folder runs/bench --pairs 5 --steps 4 --against trl,trl-best

Each round is one process of Prospect, then one of each peer (bench/run.py), with the same environment. A leg in which
other processes used more than 0.1 cores, or whose processor time is more than 10% off its median, is void and run
again, up to --repeats times a side. Every leg is kept in a file: the same command continues, and prints the table at
once when nothing is left to run. Nothing is compared when gradient norm, summed log-probabilities or loss of the first
step, or the number of tokens, differ.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from statistics import median

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np  # noqa: E402

from bench.legs import Disagreement, Ledger, Leg, Surroundings, agree, key_of, run_leg, undisturbed  # noqa: E402

OWN = "prospect"
SIDES: dict[str, dict[str, str]] = {
    OWN: {"--fw": "prospect", "--ckpt": "0", "--pre": "1"},
    "prospect-ckpt": {"--fw": "prospect", "--ckpt": "1", "--pre": "1"},
    "prospect-live": {"--fw": "prospect", "--ckpt": "0", "--pre": "0"},
    "trl": {"--fw": "trl", "--ckpt": "1", "--pre": "0"},  # its defaults
    "trl-best": {"--fw": "trl", "--ckpt": "0", "--pre": "1"},  # and, for sft, packing
    "packed": {"--fw": "packed", "--ckpt": "0", "--pre": "1"},
}
_EPOCHS = (1, 3)


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


def clean_pairs(own: Seq[Leg], peer: Seq[Leg]) -> list[tuple[Leg, Leg]]:
    """Legs of one round where neither is void; then what is left of both sides, in order: void ones' replacements."""
    sound = [{id(leg) for leg in undisturbed(side)} for side in (own, peer)]
    rounds = [(a if id(a) in sound[0] else None, b if id(b) in sound[1] else None) for a, b in zip_longest(own, peer)]
    together = [(a, b) for a, b in rounds if a is not None and b is not None]
    left = [a for a, b in rounds if a is not None and b is None], [b for a, b in rounds if b is not None and a is None]
    return together + list(zip(*left, strict=False))


def table(name: str, own: Seq[Leg], peer: Seq[Leg], rows: int) -> str:
    """Medians of both sides and the ratios over pairs (``clean_pairs``, or all legs in order), in Markdown."""
    clean = clean_pairs(own, peer)
    every = list(zip(own, peer, strict=False))
    lines = [
        f"| {len(clean)} clean pairs of {len(every)} | {OWN} | {name} | ratio, 90% interval |",
        "|---|---|---|---|",
    ]

    def add(title: str, value: Callable[[Leg], float], over: bool, pairs: Seq[tuple[Leg, Leg]]) -> None:
        found = [(value(a), value(b)) for a, b in pairs]
        if not found:
            lines.append(f"| {title} | – | – | no clean pair: no claim |")
            return
        ratios = [a / b if over else b / a for a, b in found]
        middles = [f"{median(side):.4g}" for side in zip(*found, strict=True)]
        lines.append(f"| {title} | {middles[0]} | {middles[1]} | {Interval.of(ratios)} |")

    add("tokens/s", lambda leg: leg.tok_s, True, clean)
    add("CPU-ms a token", lambda leg: 1000 * leg.cpu / leg.tok, False, clean)
    add("CPU-ms a token, void legs too", lambda leg: 1000 * leg.cpu / leg.tok, False, every)
    add("peak over imports, MB (own : peer)", lambda leg: leg.memory, True, every)
    add("tokens run a trained token", lambda leg: (leg.step_tok_run + leg.step_tok_frozen) / leg.step_tok, False, every)
    add("FLOPs a token, millions", lambda leg: leg.step_flops / leg.step_tok / 1e6, False, every)
    tokens = rows * own[0].tok / own[0].ex

    def cost(epochs: int, which: int) -> Callable[[Leg], float]:
        return lambda leg: leg.whole(epochs, rows, tokens)[which]

    for epochs in _EPOCHS:
        title = f"{epochs} epoch{'s' * (epochs > 1)} of {rows} rows, all costs"
        add(f"{title}, s", cost(epochs, 0), False, clean)
        add(f"{title}, CPU-s", cost(epochs, 1), False, every)
    return "\n".join(lines)


@dataclass(slots=True)
class Series:
    """The sides of one comparison and the legs that each has so far."""

    sides: dict[str, dict[str, str]]  # name -> options of bench/run.py
    settings: list[str]  # Prospect's
    ledger: Ledger
    pairs: int
    repeats: int
    surroundings: Surroundings = field(default_factory=Surroundings)
    keys: dict[str, dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.keys = {
            side: key_of(options, self._settings(side), self.surroundings) for side, options in self.sides.items()
        }

    def _settings(self, side: str) -> list[str]:
        return self.settings if self.sides[side]["--fw"] == "prospect" else []

    def legs(self, side: str) -> list[Leg]:
        """All of a side."""
        return self.ledger.legs(self.keys[side])

    def left(self) -> dict[str, int]:
        """How many legs each side still wants."""
        wanted = {}
        for side in self.sides:
            legs = self.legs(side)
            wanted[side] = min(self.pairs - len(undisturbed(legs)), self.pairs + self.repeats - len(legs))
        return {side: count for side, count in wanted.items() if count > 0}

    def run(self) -> None:
        """Run what is left, the side with fewest legs first.

        Raises:
            Disagreement: a side computes something else.
        """
        while left := self.left():
            side = min(left, key=lambda name: len(self.legs(name)))
            now = time.strftime("%H:%M:%S")
            print(f"{now}  {sum(left.values())} legs left{self._time(left)}; {side} …", flush=True)
            self.ledger.add(self.keys[side], run_leg(self.sides[side], self._settings(side), self.surroundings))
            leg = self.legs(side)[-1]
            print(f"          {leg.tok_s:.0f} tok/s, {leg.cpu:.1f} CPU-s, foreign {leg.foreign:.2f}", flush=True)
            self.check()

    def check(self) -> None:
        """Raises Disagreement where a side's latest leg differs from Prospect's."""
        own = self.legs(OWN)
        for side, options in self.sides.items():
            if own and side != OWN and (legs := self.legs(side)):
                try:
                    agree(own[-1], legs[-1], options["--dtype"], options.get("--packing") != "1")
                except Disagreement as problem:
                    raise Disagreement(f"{OWN} and {side} differ in {problem}") from problem

    def _time(self, left: dict[str, int]) -> str:
        """How long they will take, going by those that were run."""
        seconds = {side: median([leg.leg_s for leg in legs]) for side in left if (legs := self.legs(side))}
        if len(seconds) < len(left):
            return " (time known after the first round)"
        return f", about {sum(left[side] * seconds[side] for side in left) / 60:.0f} minutes"


def main() -> int:
    """Run all legs and print the tables; 1 when the frameworks disagree or a leg fails."""
    arguments = _parser().parse_args()
    data = arguments.folder / ("kto.jsonl" if arguments.task == "kto" else "dpo.jsonl")
    model = arguments.folder / arguments.shape
    if not data.is_file() or not model.is_dir():
        print(f"error: {data} or {model} is not there; bench/prepare.py makes them", file=sys.stderr)
        return 2
    common = {
        "--task": arguments.task,
        "--model": str(model),
        "--data": str(data),
        **{f"--{name.replace('_', '-')}": str(getattr(arguments, name)) for name in _PASSED},
    }
    sides = {name: common | SIDES[name] for name in [OWN, *arguments.against]}
    if arguments.task == "sft" and "trl-best" in sides:
        sides["trl-best"]["--packing"] = "1"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the leg that is running, too
    ledger = Ledger(arguments.out or arguments.folder / f"legs-{arguments.task}.jsonl")
    surroundings = Surroundings(arguments.keep_memory, arguments.spin)
    series = Series(sides, arguments.set, ledger, arguments.pairs, arguments.repeats, surroundings)
    try:
        series.run()
        series.check()
    except Disagreement as problem:
        print(f"void: {problem}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError:
        return 1
    for name in arguments.against:
        print(f"\n{arguments.task}, {arguments.shape}, against {name}\n")
        print(table(name, series.legs(OWN), series.legs(name), arguments.rows))
    return 0


_PASSED = {"max_length": 1024, "mb": 4, "steps": 4, "warm": 1, "dtype": "float32", "seed": 1, "rows": 300}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("sft", "dpo", "kto", "orpo"), required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench"), help="what bench/prepare.py has made")
    parser.add_argument("--shape", default="d8k", help="the model in it")
    parser.add_argument("--against", type=_names, default=["trl", "trl-best"], help=f"of {', '.join(list(SIDES)[1:])}")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3, help="legs that each side may have beyond --pairs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of Prospect's; repeat")
    parser.add_argument("--keep-memory", action="store_true", help="tell glibc to keep freed memory, on all sides")
    parser.add_argument(
        "--spin", action="store_true", help="leave OMP_WAIT_POLICY unset, on all sides: compare seconds only"
    )
    parser.add_argument("--out", type=Path, help="file of legs; default: FOLDER/legs-TASK.jsonl")
    for name, default in _PASSED.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return parser


def _names(given: str) -> list[str]:
    found = given.split(",")
    if unknown := set(found) - (SIDES.keys() - {OWN}):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}; there are {', '.join(list(SIDES)[1:])}")
    return found


if __name__ == "__main__":
    sys.exit(main())
