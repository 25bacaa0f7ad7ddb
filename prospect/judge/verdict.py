"""From a judge's reply to its verdict.

In order of trust: the weights of the label tokens, JSON with a winner, the last ``[[X]]``, the last explicit sentence
(speech.py), a bare label. What the judge repeats from the texts that it was shown is taken out first: an answer that
says "[[A]]" or "Response 1 is better" cannot speak for its judge. Refusals, denials and labels that were not offered
give no verdict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from prospect.judge.quotes import without_echoes
from prospect.judge.reply import json_objects, strip_thoughts
from prospect.judge.speech import NOUN, Verdict, spoken_verdict

__all__ = ["How", "Reading", "Verdict", "read_text", "read_verdict", "read_weights"]

_MOST_OUTSIDE = 0.5  # of the probability on other tokens than the labels: beyond it, weights say nothing
_HEAD, _TAIL, _LONGEST_JSON = 1_000, 3_000, 20_000  # characters of a reply
_WINNER = (
    *("winner", "verdict", "better", "choice", "preferred", "preference", "better_response", "preferred_response"),
    *("answer", "best", "decision", "result"),
)
_BRACKETS = (
    r"\[\[([^\[\]]{1,24})\]\]",
    r"\\boxed\{([^{}]{1,24})\}",
    r"<(?:answer|verdict|winner|choice)>\s*([^<>]{1,24}?)\s*</(?:answer|verdict|winner|choice)>",
    r"(?<!\[)\[([^\[\]]{1,24})\]\s*\.?\s*$",
)
_NARROW = {0xFF01 + i: chr(0x21 + i) for i in range(94)}  # full-width forms of ASCII, as Chinese and Japanese have them
_NARROW |= {0x3002: ". ", 0x3001: ", ", 0xFF0C: ", "}  # and their stops
_OTHERS = r"\b(?:than|over|not|instead of|rather than|beats?|against|versus|vs\.?|or|and)\s*$|[/,]\s*$"
_DENIED = (
    r"[\s,]*(?:is|was|does|did|has|should|would|can)?\s*(?:\bnot\b|n't\b|never\b|worse\b|weaker\b|inferior\b|loses\b)"
)
_ORDINALS = {"first": Verdict.first, "second": Verdict.second}
_LEADING_LABEL = re.compile(r"\(?(\w)\)?(?:,|\s+-|\s*[–—]|\s*,?\s+(?:because|since|as)\b)")
DECORATION = " \t\r\n▁Ġ*_`\"'.,:;!()[]{}#>“”"


class How(StrEnum):
    """What a verdict was read from, in order of trust."""

    weights = "weights"
    structure = "structure"
    brackets = "brackets"
    words = "words"
    label = "label"


@dataclass(frozen=True, slots=True)
class Reading:
    """A verdict and where it stood. ``strong``: ``A>>B``. ``share``: the first answer's part of the labels' weight;
    ``outside``: the probability that other tokens had."""

    verdict: Verdict | None
    how: How | None = None
    strong: bool = False
    share: float | None = None
    outside: float | None = None


def read_weights(top: Mapping[str, float] | None, labels: str) -> Reading | None:
    """A verdict from the first token's log-probabilities; None where they are missing or are about other tokens.

    Spellings of a label (" A", "A") are summed, and the two labels' weights are scaled to 1 as AlpacaEval does:
    share = e^a / (e^a + e^b), a label that is not among the top tokens has weight 0.
    """
    if not top:
        return None
    weights = [0.0, 0.0]
    fold = labels[0].lower() != labels[1].lower()
    for token, logprob in top.items():
        word = token.translate(_NARROW).strip(DECORATION)
        for i, label in enumerate(labels):
            if word == label or (fold and word.lower() == label.lower()):
                weights[i] += math.exp(logprob)
    known = min(sum(weights), 1.0)
    if known < 1.0 - _MOST_OUTSIDE:
        return None
    share = weights[0] / sum(weights)
    verdict = Verdict.tie if share == 0.5 else Verdict.first if share > 0.5 else Verdict.second
    return Reading(verdict, How.weights, share=share, outside=1.0 - known)


def read_text(text: str, labels: str, shown: Sequence[str] = ()) -> Reading:
    """What the judge's words say; ``shown`` are the texts it was given, whose echoes do not count."""
    text, cut = strip_thoughts(text.translate(_NARROW))
    text = without_echoes(text, shown)
    if cut or not text:
        return Reading(None)
    names = {labels[0]: Verdict.first, labels[1]: Verdict.second}
    known, verdict = _json_verdict(text[-_LONGEST_JSON:], names)
    if known:
        return Reading(verdict, How.structure)
    if len(text) > _HEAD + _TAIL:  # a verdict stands at the start or at the end; patterns take long on long texts
        text = f"{text[:_HEAD]}\n\n{text[-_TAIL:]}"
    found = _bracket_verdict(text, names)
    if found is not None:
        return found
    lines = [line for line in text.splitlines() if line.strip()]
    for line in (text, lines[0], lines[-1]):
        if (bare := _label(line, names)) is not None:
            ends = _label(lines[-1], names)  # "1" at the start and "2" at the end decide nothing
            return Reading(bare if ends in (bare, None) else None, How.label)
        if (order := _ordered(line.strip(), names)) is not None:
            return order
    spoken = spoken_verdict(text, labels)
    if spoken is not None:
        return Reading(spoken, How.words)
    leading = _LEADING_LABEL.match(text)
    return Reading(names.get(leading[1]) if leading else None, How.label)


def read_verdict(text: str, labels: str) -> Verdict | None:
    """What a judge that was offered ``labels`` (two characters, in the order shown) decided; None where it did not."""
    return read_text(text, labels).verdict


def _label(text: str, names: Mapping[str, Verdict]) -> Verdict | None:
    """A text that is nothing but a label, with or without decoration."""
    word = text.strip(DECORATION)
    if word in names:
        return names[word]
    folded = {name.lower(): verdict for name, verdict in names.items()}
    if len(folded) == 2 and word.lower() in folded:
        return folded[word.lower()]
    if word.lower() in _ORDINALS:
        return _ORDINALS[word.lower()]
    return Verdict.tie if word.lower() in ("tie", "draw") else None


def _json_verdict(text: str, names: Mapping[str, Verdict]) -> tuple[bool, Verdict | None]:
    """Whether the reply is JSON about a winner, and whom the last such object names."""
    found: list[Verdict | None] = []
    for content in json_objects(text):
        values = {str(key).lower(): value for key, value in content.items()}
        while isinstance(inner := next((values[key] for key in _WINNER if key in values), None), dict):
            values = {str(key).lower(): value for key, value in inner.items()}
        found += [_named(values[key], names) for key in _WINNER if key in values][:1]
    if found:
        return True, found[-1]
    if text.startswith(("{", "```")) and '"' in text:
        cut = re.match(r'(?:```\w*\s*)?\{\s*"winner"\s*:\s*"([^"]*)"', text)
        return True, _named(cut[1], names) if cut else None
    return False, None


def _named(value: Any, names: Mapping[str, Verdict]) -> Verdict | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    word = re.sub(rf"^{NOUN}\s+", "", str(value).strip(), flags=re.IGNORECASE)
    return None if re.search(r"[<>=]", word) else _label(word, names)


def _bracket_verdict(text: str, names: Mapping[str, Verdict]) -> Reading | None:
    """The last verdict in (double) brackets, as Arena-Hard reads it; None where there are no brackets."""
    for pattern in _BRACKETS:
        found = [*re.finditer(pattern, text, flags=re.IGNORECASE)]
        if found:
            last = found[-1]
            before, after = text[: last.start()].rpartition("\n")[2], text[last.end() :]
            if re.search(_OTHERS, before, re.IGNORECASE) or re.match(_DENIED, after, re.IGNORECASE):
                return Reading(None, How.brackets)  # "[[A]] over [[B]]", "[[A]] is not better"
            return _in_brackets(last[1].strip(), names)
    return None


def _in_brackets(word: str, names: Mapping[str, Verdict]) -> Reading:
    order = _ordered(word, names)
    if order is not None:
        return order
    third = word == "C" and "C" not in names  # MT-Bench's tie
    return Reading(Verdict.tie if third else _named(word, names), How.brackets)


def _ordered(text: str, names: Mapping[str, Verdict]) -> Reading | None:
    """The winner in ``A>>B``; None where the text is nothing of that kind."""
    order = re.fullmatch(r"(\w)\s*(>+|<+|=+)\s*(\w)", text)
    if order is None:
        return None
    left, sign, right = _label(order[1], names), order[2], _label(order[3], names)
    if left is None or right is None or left == right:
        return Reading(None, How.brackets)
    verdict = {">": left, "<": right, "=": Verdict.tie}[sign[0]]
    return Reading(verdict, How.brackets, strong=len(sign) > 1 and verdict is not Verdict.tie)
