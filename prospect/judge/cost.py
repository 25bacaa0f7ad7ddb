"""What a run costs, before and after: tokens from characters, dollars from a dated table of prices.

Before the first reply, tokens in are 0.23 a character of the template and 0.2 a character of the texts (measured on
41,732 real judgments: within 4% of a run's total); earlier replies of the same judge in the ledger give its own ratio.
Without a price only tokens are told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prospect.errors import UserError
from prospect.judge.options import Asking
from prospect.judge.prompt import JudgePrompt
from prospect.judge.reply import Usage, read, usage
from prospect.judge.streams import content_of

_TEXT_TOKENS, _TEMPLATE_TOKENS = 0.2, 0.23  # a character
_REASONING_TOKENS = 300  # of a judge that thinks first, at low effort
_TABLE = Path(__file__).parent / "prices.yaml"
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_ENOUGH = 20  # replies after which an estimate is made anew


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a token; ``date`` of the table, empty where the user gave it."""

    tokens_in: float
    cached: float
    tokens_out: float
    date: str = ""

    def of(self, used: Usage) -> float:
        """What a reply cost."""
        fresh = used.prompt - used.cached
        return fresh * self.tokens_in + used.cached * self.cached + used.completion * self.tokens_out


def price_of(asking: Asking, model: str | None) -> Price | None:
    """The price of a model at an endpoint; None where it is not known."""
    share = 0.5e-6 if asking.batch else 1e-6
    if asking.price is not None:
        given_in, given_out = asking.price
        return Price(given_in * share, given_in * share, given_out * share)
    table = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    row = table["models"].get(_DATED.sub("", (model or "").rsplit("/", 1)[-1]))
    if row is None:
        return None
    fresh, cached, out = (number * share for number in row)
    return Price(fresh, cached, out, str(table["date"]))


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens of one request: in, by its characters, and out."""

    text: float
    template: float
    out: float
    template_chars: int

    def tokens_in(self, messages: Sequence[Mapping[str, str]]) -> float:
        """Of a request with these messages."""
        chars = sum(len(message["content"]) for message in messages)
        template = min(self.template_chars, chars)
        return template * self.template + (chars - template) * self.text

    def usd(self, messages: Sequence[Mapping[str, str]], price: Price) -> float:
        """Of a request with these messages."""
        return self.tokens_in(messages) * price.tokens_in + self.out * price.tokens_out


def estimator(
    prompt: JudgePrompt, ratio: float | None, earlier: Iterable[tuple[Mapping[str, Any], bytes]], reasons: bool
) -> Estimate:
    """From what is known: the user's ``ratio``, ``earlier`` requests of this judge with their replies, real runs."""
    chars = tokens = replies = out = 0
    for request, body in earlier:
        reply = read(body)
        if reply is not None and reply.prompt_tokens:
            chars += sum(len(str(message.get("content"))) for message in request["messages"])
            tokens, out, replies = tokens + reply.prompt_tokens, out + reply.completion_tokens, replies + 1
    each = out / replies if replies else prompt.reply_tokens + (_REASONING_TOKENS if reasons else 0)
    if ratio is None and chars:
        ratio = tokens / chars
    if ratio is not None:
        return Estimate(ratio, ratio, each, 0)
    return Estimate(_TEXT_TOKENS, _TEMPLATE_TOKENS, each, len(prompt.system) + len(prompt.user))


class Meter:
    """What this run spends: counts replies, tells what all will cost, and says when the money is used up."""

    def __init__(self, price: Price | None, expected: Mapping[str, float], max_usd: float | None) -> None:
        """``expected``: the estimated cost of each key that is to be asked."""
        self.price, self.max_usd = price, max_usd
        self._expected = dict(expected)
        self._under_way: dict[str, float] = {}
        self.spent = 0.0
        self.replies = 0
        self._estimated_so_far = 0.0

    def fits(self, key: str) -> bool:
        """Whether one more request stays below the limit, those under way counted; it is then under way itself."""
        cost = self._expected.get(key, 0.0) * self._correction
        if self.max_usd is not None and self.spent + sum(self._under_way.values()) + cost > self.max_usd:
            return False
        self._under_way[key] = cost
        return True

    def landed(self, key: str, body: bytes | None, billed: bool) -> None:
        """A request has come back; without its reply but perhaps billed it counts as much as was expected."""
        cost = self._under_way.pop(key, 0.0)
        content = content_of(body) if body else None
        if content is None or self.price is None:
            self.spent += cost if billed else 0.0
            return
        self.spent += self.price.of(usage(content))
        self.replies += 1
        self._estimated_so_far += self._expected.get(key, 0.0)

    @property
    def total(self) -> float:
        """What the run will have cost: the estimate, made anew from the twentieth reply on."""
        return sum(self._expected.values()) * self._correction

    @property
    def _correction(self) -> float:
        if self.replies < _ENOUGH or not self._estimated_so_far:
            return 1.0
        return self.spent / self._estimated_so_far

    def note(self) -> str:
        """For the progress bar."""
        return "" if self.price is None else f"${self.spent:.4g} of about ${self.total:.4g}"


def no_price(asking: Asking, model: str) -> UserError:
    """For --max-usd without a price."""
    return UserError(
        f"--max-usd: no price is known for {model} at {asking.base_url}; give it with --price IN,OUT "
        "(US dollars for a million tokens), or limit the requests with --max-requests"
    )
