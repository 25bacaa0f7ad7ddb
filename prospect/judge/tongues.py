"""Verdicts in other languages than English: the names of an answer, and the few sentences that are read.

A judge often replies in the language of the answers. Read are a bare "Antwort 2", one answer that is said to be better
("La réponse 1 est meilleure"), one that is better than the other, and one that is chosen ("Ich wähle Antwort 2"). Any
word of doubt, condition or denial gives no verdict: a sentence that is understood by half must not become the wrong
side. The words stand in tongues.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

_LANGUAGES: Mapping[str, Mapping[str, Sequence[str]]] = yaml.safe_load(
    Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
)
_MARK = "(⟨[12]⟩)"


def _any_of(key: str) -> str:
    """An alternative of all words of a kind, whole words where a language parts them."""
    words: list[str] = []
    for language in _LANGUAGES.values():
        spaced = language.get("spaced", True)
        words += [rf"\b(?:{word})\b" if spaced else word for word in language.get(key, ())]
    return "|".join(words)


def _names() -> Iterable[str]:
    for language in _LANGUAGES.values():
        spaced = language.get("spaced", True)
        yield from (rf"\b{word}" if spaced else word for word in language["name"])


NAME = f"(?:{'|'.join(_names())})"  # of an answer, with its label behind it
_BETTER = re.compile(_any_of("better"))
_CHOOSES = re.compile(rf"(?:{_any_of('choose')})[^⟨]{{0,16}}{_MARK}")
_DOUBT = re.compile(_any_of("doubt"))
_THAN = re.compile(
    rf"{_MARK}[^⟨]*\s(?:{_any_of('than')})\s+(?:(?:la|a|die|de|dela|las)\s+)?{_MARK}\W*$|{_MARK}\s*(?:比|优于|優於)\s*{_MARK}"
)


def is_foreign(clause: str) -> bool:
    """Whether a clause has a word that decides in another language."""
    return _BETTER.search(clause) is not None or _CHOOSES.search(clause) is not None


def preferred(clause: str) -> str | None:
    """The mark of the answer that a clause prefers; None where it does not, or leaves any doubt."""
    if _DOUBT.search(_THAN.sub(r"\1 \2 \3 \4", clause)):
        return None
    marks = re.findall(_MARK, clause)
    better = _BETTER.search(clause)
    if len(set(marks)) == 1:
        return marks[0] if better or _CHOOSES.search(clause) else None
    than = _THAN.search(clause) if better and len(marks) == 2 else None
    return (than[1] or than[3]) if than else None
