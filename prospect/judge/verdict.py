"""From a judge's words to its verdict.

In order of trust: JSON with a winner, the last ``[[X]]``, a bare label, then sentences. A sentence decides in so many
words ("I choose Response 2", "Response 1 is better") or leans ("Response 2 is more concise"); what decides outweighs
what leans, and contradictions without a conclusion are no verdict. Doubt is never a win for anybody: refusals, denials,
"neither", quotes of the answers and labels that were not offered give None.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from prospect.judge.reply import strip_thoughts


class Verdict(StrEnum):
    """Which of the two answers shown won."""

    first = "first"
    second = "second"
    tie = "tie"


_FIRST, _SECOND = "⟨1⟩", "⟨2⟩"  # stand for mentions of the answers
_ANY = "(⟨[12]⟩)"
_OF = {_FIRST: Verdict.first, _SECOND: Verdict.second}
_OTHER = {_FIRST: Verdict.second, _SECOND: Verdict.first}

_NOUN = r"(?:responses?|answers?|assistants?|options?|models?|outputs?|candidates?|completions?|replies|reply)"
_NOT = re.compile(
    r"\b(?:not|never|neither|nor|cannot|can't|unable|hardly|\w+n't|no (?:better|more|winner)|refuse|unless|if)\b"
)
_WORSE = re.compile(
    rf"{_ANY}[^⟨]*\b(?:not (?:\w+ )?(?:as|nearly|quite)|\w+n't (?:\w+ )?(?:as|nearly)|less|worse|inferior|weaker"
    rf"|falls short)\b[^⟨]*\b(?:than|as|to|compared to|of)\s+{_ANY}"
)
_LOSER = re.compile(
    rf",?\s*\(?\b(?:over|than|rather than|instead of|compared (?:to|with)|versus|vs\.?|unlike|not|and not|against"
    rf"|beats|outperforms|surpasses)\s+(?:that of |those of )?{_ANY}\)?"
)
_BEATS = re.compile(rf"{_ANY}\s+(?:clearly |easily |narrowly )?(?:beats|outperforms|surpasses|wins)\b")
_CHOOSES = re.compile(
    r"\b(?:pick|picked|picking|choose|chose|choosing|chosen|prefer|preferred|select|selected|go with|going with"
    r"|vote for|favou?r|lean towards?|opt for|recommend)\b[^⟨]*" + _ANY
)
_NAMES = re.compile(
    r"\b(?:better|best|winner|winning|preferred|preferable|superior|stronger|choice|verdict|decision|answer|conclusion"
    r"|preference|pick|judge?ment)\b[^⟨]{0,40}?(?:\bis\b|\bwould be\b|\bgoes to\b|:|=|-)\s*[^⟨]{0,12}" + _ANY
)
_IS_BEST = re.compile(
    _ANY + r"[^⟨]*\b(?:better|best|preferred|preferable|superior|the winner|wins|stronger|a better choice)\b"
)
_IS_MORE = re.compile(_ANY + r"[^⟨]*\b(?:more \w+|(?!other|rather|whether|either|further|answer|neither)\w{3,}er)\b")
_TIE = re.compile(r"\b(?:tie|tied|draw)\b|\bequally (?:good|helpful|strong|matched|valid)\b|\bno (?:clear )?winner\b")
_ALIKE = re.compile(r"\b(?:equally|equal|identical|the same|comparable)\b")
_CONCLUDES = re.compile(r"\b(?:overall|finally?|therefore|thus|hence|in conclusion|to conclude|ultimately|so)\b")
_STRAIGHT = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
_PARTS = re.compile(r"[.!?;:\n]+\s+|\n+|,\s+(?=while|though|although)|,?\s+\b(?:but|however|yet|whereas)\b,?\s+")
_CONCEDED = re.compile(r"\b(?:while|although|even though|though|if|whereas)\b[^,.;:!?\n]*,")
_REASON = re.compile(r"\b(?:because|since|due to|as it|as they|for being|given that|even though|although|despite)\b.*")


def read_verdict(text: str, labels: str) -> Verdict | None:
    """What a judge that was offered ``labels`` (two characters, in the order shown) decided; None where it did not."""
    text, cut = strip_thoughts(text)
    if cut or not text:
        return None
    names = {labels[0]: Verdict.first, labels[1]: Verdict.second}
    for known, verdict in (_json_verdict(text, names), _bracket_verdict(text, names)):
        if known:
            return verdict
    lines = [line for line in text.splitlines() if line.strip()]
    for line in (text, lines[0], lines[-1]):
        if (bare := _label(line, names)) is not None:
            return bare
    return _spoken_verdict(_marked(text, labels))


def _label(text: str, names: dict[str, Verdict]) -> Verdict | None:
    """A text that is nothing but a label, with or without decoration."""
    word = text.strip(" \t\r\n*_`\"'.,:;!()[]{}#>“”")
    if word in names:
        return names[word]
    folded = {name.lower(): verdict for name, verdict in names.items()}
    if len(folded) == 2 and word.lower() in folded and word.isupper() == next(iter(names)).isupper():
        return folded[word.lower()]
    return Verdict.tie if word.lower() in ("tie", "draw") else None


def _json_verdict(text: str, names: dict[str, Verdict]) -> tuple[bool, Verdict | None]:
    """Whether the reply is JSON about a winner, and whom it names."""
    for start in [match.start() for match in re.finditer(r"\{", text)]:
        try:
            content, _ = json.JSONDecoder().raw_decode(text, start)
        except ValueError:
            continue
        for key in ("winner", "verdict", "better", "choice", "preferred", "preference"):
            if isinstance(content, dict) and key in content:
                return True, _named(content[key], names)
    if text.startswith(("{", "```")) and '"' in text:
        cut = re.match(r'(?:```\w*\s*)?\{\s*"winner"\s*:\s*"([^"]*)"', text)
        return True, _named(cut[1], names) if cut else None
    return False, None


def _named(value: Any, names: dict[str, Verdict]) -> Verdict | None:
    word = re.sub(rf"^{_NOUN}\s+", "", str(value).strip(), flags=re.IGNORECASE)
    return _label(word, names)


def _bracket_verdict(text: str, names: dict[str, Verdict]) -> tuple[bool, Verdict | None]:
    """Whether the reply has a verdict in (double) brackets, and which: the last one, as Arena-Hard reads it."""
    for pattern in (r"\[\[([^\[\]]{1,24})\]\]", r"\[([^\[\]]{1,24})\]\s*\.?\s*$"):
        found = re.findall(pattern, text)
        if found:
            return True, _in_brackets(found[-1].strip(), names)
    return False, None


def _in_brackets(word: str, names: dict[str, Verdict]) -> Verdict | None:
    order = re.fullmatch(r"(\w)\s*(>+|<+|=+)\s*(\w)", word)
    if order is None:
        third = word == "C" and "C" not in names and set(names) == {"A", "B"}  # MT-Bench's tie
        return Verdict.tie if third else _named(word, names)
    left, sign, right = (_label(order[1], names), order[2][0], _label(order[3], names))
    if left is None or right is None or left == right:
        return None
    return {">": left, "<": right, "=": Verdict.tie}[sign]


def _marked(text: str, labels: str) -> str:
    """The text in lower case, with mentions of the two answers as marks and without quotes of them."""
    text = re.sub(r"```.*?(?:```|$)", " ", text, flags=re.DOTALL)
    text = re.sub(r"^\s*>.*$", " ", text, flags=re.MULTILINE)
    text = text.translate(_STRAIGHT)
    text = re.sub(r'"[^"\n]*"', lambda quote: quote[0].strip('"') if len(quote[0].split()) < 3 else " ", text)
    text = re.sub(r"[*_`#]+", "", text)
    flags = re.IGNORECASE if labels[0].lower() != labels[1].lower() else 0
    for label, mark in zip(labels, (_FIRST, _SECOND), strict=True):
        word = rf"(?:{re.escape(label)})(?![\w'])"
        text = re.sub(rf"\b(?i:{_NOUN})\s*[#(:]?\s*{word}\)?", mark, text, flags=flags)
        text = re.sub(rf"(?<=⟩ and ){word}|(?<=⟩ or ){word}", mark, text, flags=flags)
        text = re.sub(rf"(?i:(\b(?:answer|verdict|winner|choice|preferred|decision|better)(?: is)?\s*[:=]?)\s*){word}",
                      rf"\1 {mark}", text)  # fmt: skip
    text = text.lower()
    for ordinal, mark in (("first", _FIRST), ("former", _FIRST), ("second", _SECOND), ("latter", _SECOND)):
        text = re.sub(rf"\b(?:the )?{ordinal}\s+(?:one|{_NOUN})\b", mark, text)
    return text


def _spoken_verdict(text: str) -> Verdict | None:
    """The verdict of marked sentences."""
    decided: list[tuple[Verdict, bool]] = []
    leaning: list[Verdict] = []
    for part in _PARTS.split(_CONCEDED.sub(" ", text)):
        clause = _REASON.sub("", part).strip()
        strong, weak = _clause(clause)
        if strong is not None:
            decided.append((strong, bool(_CONCLUDES.search(clause))))
        elif weak is not None:
            leaning.append(weak)
    concluded = [verdict for verdict, concludes in decided if concludes]
    for group in (
        concluded,
        [verdict for verdict, _ in decided],
        [v for v in leaning if v is not Verdict.tie],
        leaning,
    ):
        if group:
            return group[-1] if len(set(group)) == 1 else None
    return None


def _clause(clause: str) -> tuple[Verdict | None, Verdict | None]:
    """What one clause decides, and to what it leans."""
    worse = _WORSE.search(clause)
    if worse and worse[1] != worse[2]:
        return None, _OTHER[worse[1]]
    beats = _BEATS.search(clause)
    clause = _LOSER.sub(" ", clause)
    marks = set(re.findall(_ANY, clause))
    if _NOT.search(clause):
        return None, None
    if beats and not marks - {beats[1]}:
        return _OF[beats[1]], None
    if _TIE.search(clause) and len(marks) != 1:
        return Verdict.tie, None
    if re.fullmatch(r"\W*" + _ANY + r"[\W⟨⟩]*", clause) and len(marks) == 1:
        return _OF[marks.pop()], None
    for pattern in (_CHOOSES, _NAMES, _IS_BEST):
        verdict = _single(pattern.findall(clause))
        if verdict is not None and (pattern is not _IS_BEST or len(marks) == 1):
            return verdict, None
    if len(marks) == 1 and _IS_MORE.search(clause):
        return None, _OF[marks.pop()]
    return None, Verdict.tie if _ALIKE.search(clause) else None


def _single(marks: Sequence[str]) -> Verdict | None:
    return _OF[marks[-1]] if len(set(marks)) == 1 else None
