"""The flags of compare.py as one typed object. Imports nothing heavy: ``--help`` must answer at once."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from prospect.errors import nearest
from prospect.judge.address import address_of
from prospect.judge.own import NOTHING, Own, own_of

JUDGES = "a model of the endpoint, hf:DIR, rm:DIR, systemone:MODEL, longest, random, or rule (the demo's)"
OPENAI = "https://api.openai.com/v1"


class Orders(StrEnum):
    """In which order a judge sees the two answers: each once, one drawn by hash, or the candidate always first."""

    both = "both"
    random = "random"
    fixed = "fixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a judge is asked. ``judge`` None: the preflight chooses. ``price``: US dollars for a million tokens in and
    out; ``token_ratio``: tokens a character; None: known from the table of prices and from earlier replies.
    ``base_url`` may be written down; ``address`` is the same with its credentials, where it has any."""

    judge: str | None = None
    base_url: str = OPENAI
    address: str = field(default="", repr=False)
    send_key: bool = False
    own: Own = NOTHING
    prompt: str = "halos"
    labels: str | None = None
    rotate_labels: bool = False
    repeat: int = 1
    seed: int = 0
    concurrency: int = 8
    timeout: float = 120.0
    cache: Path = Path("runs/.cache/judge")
    max_requests: int | None = None
    max_usd: float | None = None
    price: tuple[float, float] | None = None
    token_ratio: float | None = None
    yes: bool = False
    batch: bool = False
    trust_remote_code: bool = False


class Control(StrEnum):
    """Which length-controlled rate: AlpacaEval's, the one for own data (``auto``, where no instruments are given), or
    none."""

    auto = "auto"
    alpaca = "alpaca"
    off = "off"


@dataclass(frozen=True, slots=True)
class Options(Asking):
    """One comparison. ``baseline_key`` None: see ``samples.load_match``; ``jury``: further judges of the same pairs."""

    file: Path
    other: Path | None = None
    candidate_key: str = "policy"
    baseline_key: str | None = None
    history_key: str = "prompt"
    max_prompts: int | None = None
    verbose: bool = False
    results: Path = Path("result.jsonl")
    jury: tuple[str, ...] = ()
    csv: Path | None = None
    report: Path | None = None
    orders: Orders = Orders.both
    max_failed: float = 0.02
    dry_run: bool = False
    stop_early: bool = False
    lc: Control = Control.auto
    lc_data: Path | None = None
    slept: bool = False


def parse(argv: list[str], description: str | None = None) -> Options:
    """The command line as Options; exits with code 2 and one line where it does not fit."""
    given = _parser(description).parse_args(argv)
    csv = given.csv
    if csv == "":
        csv = str(Path(given.results_file).with_suffix(".csv"))
    return Options(
        file=Path(given.file),
        other=Path(given.other) if given.other else None,
        candidate_key=given.candidate_key,
        baseline_key=given.baseline_key,
        history_key=given.history_key,
        labels=given.labels,
        max_prompts=given.max_comp,
        verbose=given.verbose,
        results=Path(given.results_file),
        judge=given.judge[0] if given.judge else None,
        jury=tuple(given.judge[1:]) if given.judge else (),
        csv=Path(csv) if csv else None,
        report=Path(given.report) if given.report else None,
        prompt=given.prompt,
        rotate_labels=given.rotate_labels,
        repeat=given.repeat,
        orders=Orders(given.orders),
        max_failed=given.max_failed,
        dry_run=given.dry_run,
        stop_early=given.stop_early,
        lc=Control(given.lc),
        lc_data=Path(given.lc_data) if given.lc_data else None,
        slept=given.sleep_time is not None,
        **calls_of(given),
    )


class Parser(argparse.ArgumentParser):
    """One line for a mistake, with the nearest flag."""

    def error(self, message: str) -> NoReturn:
        """End with code 2."""
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        hint = nearest(unknown[1], self._option_string_actions) if unknown else ""
        self.exit(2, f"error: {message}{hint}; --help lists the flags\n")


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = Parser(
        prog="compare.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-f", "--file", required=True, help="samples: eval.py's file, a JSON list, or JSONL")
    add("-f2", "--other", help="another samples file: its candidate column is the baseline, joined by prompt")
    add("-ck", "--candidate_key", default="policy", help="column of the answers to be judged (policy)")
    add("-bk", "--baseline_key", help="column they are compared with (chosen; with -f2 the candidate's)")
    add("-hk", "--history_key", default="prompt", help="column of the prompt (prompt)")
    add("-l", "--labels", type=_labels, help="two characters that name the answers to the judge (12)")
    add("-s", "--seed", type=int, default=0, help="of the chosen prompts, the interval and the judge (0)")
    add("-st", "--sleep_time", type=float, help="accepted; no longer needed: calls keep to the server's pace")
    add("-mc", "--max_comp", type=_positive, metavar="N", help="judge N prompts, the same ones each time (all)")
    add("-v", "--verbose", type=_truth, nargs="?", const=True, default=False, help="print each verdict (false)")
    add("-r", "--results_file", default="result.jsonl", help="JSONL file that gets one more line (result.jsonl)")
    add("-j", "--judge", action="append", help=f"{JUDGES}; several -j make a jury")
    add("-csv", "--csv", nargs="?", const="", metavar="FILE", help="also write every judged game to a CSV file")
    add("--report", metavar="FILE", help="also write an HTML page of the comparison, as `report` does")
    add("--prompt", default="halos", help="halos, alpacaeval, mtbench, arena, rubric, score, or a YAML file (halos)")
    add("--rotate-labels", action="store_true", help="other names for the answers from pair to pair: 1/2, 2/1, A/B, …")
    add("--repeat", type=_positive, default=1, metavar="K", help="ask K times, to tell the judge's noise (1)")
    add("--orders", choices=[o.value for o in Orders], default="both", help="orders in which answers are shown (both)")
    add("--stop-early", action="store_true", help="judge 50, 100, 200, … prompts, until it is sure who wins")
    call_flags(parser)
    length_flags(parser)
    return parser


def call_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of asking a judge, the same ones wherever one is asked."""
    add = parser.add_argument
    add("--base-url", default=os.environ.get("OPENAI_BASE_URL", OPENAI), help=f"OpenAI-compatible endpoint ({OPENAI})")
    add("--send-key", action="store_true", help="send the key to a server on another host over plain http, too")
    add("--reasoning-effort", metavar="EFFORT", help="of a judge that reasons: low, medium, high, … (low)")
    add(
        "--extra-body",
        metavar="JSON",
        help="further parameters of every request, as in '{\"top_k\": 1}'; they have the last word",
    )
    add("--concurrency", type=_positive, default=8, help="requests under way at once, at most (8)")
    add("--timeout", type=float, default=120.0, metavar="SECONDS", help="for one request (120)")
    add("--cache", default="runs/.cache/judge", metavar="DIR", help="folder of the ledger (runs/.cache/judge)")
    add("--max-requests", type=_positive, metavar="N", help="send at most N requests, then stop (no limit)")
    add("--max-usd", type=_amount, metavar="USD", help="stop before this run costs more (no limit)")
    add("--price", type=_price, metavar="IN,OUT", help="US dollars for a million tokens (judge/prices.yaml)")
    add("--token-ratio", type=_amount, metavar="R", help="tokens a character, for the estimate (from earlier replies)")
    add("-y", "--yes", action="store_true", help="do not ask before an expensive run")
    add("--batch", action="store_true", help="through the Batch API: half the price, done within a day")
    add("--trust-remote-code", action="store_true", help="run code that comes with a model (hf:DIR, rm:DIR)")
    add("--max-failed", type=float, default=0.02, metavar="SHARE", help="exit code 3 above this share (0.02)")
    add("--dry-run", action="store_true", help="say how many requests and tokens it would take; send nothing")


def calls_of(given: argparse.Namespace) -> dict[str, Any]:
    """What they and ``--seed`` say, by the names of Asking."""
    same = (
        *("seed", "concurrency", "timeout", "max_requests", "max_usd", "price", "token_ratio", "yes", "batch"),
        "trust_remote_code",
    )
    asked = {name: value for name, value in vars(given).items() if name in same}
    address = address_of(given.base_url)
    return asked | {
        "base_url": address.public,
        "address": given.base_url if given.base_url != address.public else "",
        "send_key": given.send_key,
        "own": own_of(given.extra_body, given.reasoning_effort),
        "cache": Path(given.cache),
    }


def length_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of length control, the same ones wherever there are judgments."""
    add = parser.add_argument
    add("--lc", choices=[str(c) for c in Control], default="auto", help="length control (auto: alpaca with --lc-data)")
    add("--lc-data", metavar="DIR", help="folder of lc_instruction_difficulty.json and lc_gamed_prior.json")


def _truth(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return words[text.lower()]


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _price(text: str) -> tuple[float, float]:
    parts = text.split(",")
    if len(parts) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers, as in 0.5,2")
    return _amount(parts[0]), _amount(parts[1])


def _labels(text: str) -> str:
    if len(text) != 2 or not text.isalnum() or text[0] == text[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not two different letters or digits, as in 12 or AB")
    return text
