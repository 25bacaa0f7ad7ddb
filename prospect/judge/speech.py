"""A verdict in plain sentences.

A sentence decides in so many words ("I choose Response 2", "Response 1 is better") or leans ("Response 2 is more
concise"); what decides outweighs what leans, and contradictions without a conclusion are no verdict. Doubt is never a
win for anybody: denials, questions, "neither" and labels that were not offered give None.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from prospect.judge.tongues import NAME, is_foreign, preferred


class Verdict(StrEnum):
    """Which of the two answers shown won."""

    first = "first"
    second = "second"
    tie = "tie"


_FIRST, _SECOND = "⟨1⟩", "⟨2⟩"  # stand for mentions of the answers
_ANY = "(⟨[12]⟩)"
_OF = {_FIRST: Verdict.first, _SECOND: Verdict.second}
_OTHER = {_FIRST: Verdict.second, _SECOND: Verdict.first}

NOUN = r"(?:responses?|answers?|assistants?|options?|models?|outputs?|candidates?|completions?|replies|reply)"
_ORDINALS = (("first|former", _FIRST), ("second|latter", _SECOND))
_NAMED = (
    rf"answer|verdict|winner|choice|preferred|decision|better(?:\s+{NOUN})?|best(?:\s+{NOUN})?|pick|choose|prefer"
    r"|select|go with|vote for|would be|model|identifier"
)
_NOT = re.compile(
    r"\b(?:not|never|neither|nor|nobody|no one|none|few|cannot|can't|unable|hardly|\w+n't|no (?:better|more|winner)"
    r"|refuse|reject|disagree|false|untrue|incorrect|wrong to|unless|if|whether|could|might|may|should have|avoid\w*"
    r"|hesitate|reluctant|doubt\w*|unclear|fails? to|(?:any\w*|every\w*|all|nothing) but"
    r"|(?:hard|difficult|tough|impossible|too early) to (?:say|tell|argue|claim|see|judge|decide))\b"
)
_NO_LESS = re.compile(r"\b(?:no|not|never|\w+n't)\s+(?:\w+\s+)?(?:less|worse|inferior|weaker)\b")
_WORSE_THAN = re.compile(
    rf"{_ANY}[^⟨]*\b(?:not (?:\w+ )?(?:as|nearly|quite)|\w+n't (?:\w+ )?(?:as|nearly)|less|worse|inferior|weaker"
    rf"|falls short|loses|fails|beaten)\b[^⟨]*\b(?:than|as|to|compared to|of|by|against)\s+{_ANY}"
)
_IS_WORSE = re.compile(
    rf"{_ANY}\s+(?:is|was|seems)\s+(?:\w+\s+)?(?:the\s+)?(?:worse|worst|inferior|weaker)\b(?:\s+(?:one|{NOUN}))?\W*$"
    rf"|\b(?:worse|worst|weaker|weakest|inferior|poorer|losing)\s+(?:one|{NOUN})\s+is\s+{_ANY}"
    rf"|{_ANY}\s+(?:clearly |easily |narrowly |simply )?(?:loses|lost|is (?:the )?(?:loser|beaten|outperformed))"
    rf"(?:\s+(?:overall|here|by far))?\W*$"
)
_BAD = re.compile(
    r"\b(?:worse|worst|weaker|weakest|inferior|poorer|poorest|poor|loses|lost|loser|losing|beaten|outperformed|bad|lesser)\b"
)
_LESS = re.compile(rf"{_ANY}\s+(?:the\s+)?(?:less|least|worse|worst)\b")
_LOSER = re.compile(
    rf",?\s*\(?\b(?:over|than|rather than|instead of|compared (?:to|with)|versus|vs\.?|unlike|not|and not|against"
    rf"|beats|outperforms|surpasses|edges out|(?<=superior )to|(?<=preferable )to|(?<=preferred )to)"
    rf"\s+(?:that of |those of )?{_ANY}\)?"
)
_BEATS = re.compile(
    rf"{_ANY}\s+(?:clearly |easily |narrowly |slightly )?(?:beats|outperforms|surpasses|wins|edges out)\b"
)
_CHOOSES = re.compile(
    r"\b(?:pick|picked|picking|choose|chose|choosing|chosen|prefer|preferred|select|selected|go with|going with"
    r"|vote for|favou?r|lean towards?|opt for|recommend)\b[^⟨]*" + _ANY
)
_NAMES = re.compile(
    r"\b(?:better|best|winner|winning|preferred|preferable|superior|stronger|choice|verdict|decision|answer|conclusion"
    r"|preference|pick|judge?ment)\b[^⟨]{0,40}?(?:\bis\b|\bwould be\b|\bgoes to\b|:|=|-)\s*[^⟨]{0,12}" + _ANY
)
_IN_PART = r"(?!\s+(?:written|formatted|structured|organi[sz]ed|worded|at\b|in (?!every|all|my|general)|for\b|suited))"
_IS_BEST = re.compile(
    _ANY
    + rf"[^⟨]*\b(?:(?:better|best|preferred|preferable|superior|stronger){_IN_PART}|the winner|wins|a better choice)\b"
)
_GOOD = (  # what an answer should be; "more verbose" or "more harmful" says nothing in its favour
    r"helpful|useful|accurate|correct|factual|truthful|honest|harmless|safe|ethical|responsible|respectful|polite|kind"
    r"|empathetic|relevant|complete|comprehensive|thorough|detailed|informative|insightful|nuanced|balanced|specific"
    r"|precise|concise|direct|clear|coherent|logical|readable|structured|organi[sz]ed|natural|engaging|practical|actionable"
    r"|appropriate|suitable|satisfying|convincing|persuasive|creative|original|faithful|reliable|sensible|reasonable"
    r"|robust|efficient|elegant|professional|consistent|on[- ]topic"
)
_BETTER_WORDS = (
    r"better(?! at\b)|clearer|safer|stronger|nicer|richer|fuller|kinder|cleaner|smarter|wiser|truer|friendlier|neater"
)
_IS_MORE = re.compile(
    _ANY + rf"[^⟨]*\b(?:(?:much |far |slightly |a bit |somewhat )?more (?:\w+ly )?(?:{_GOOD})|{_BETTER_WORDS})\b"
)
_THE_MORE = re.compile(rf"\bthe (?:more|most) (?:\w+ly )?(?:{_GOOD})\b[^⟨]{{0,50}}\bis\s+{_ANY}\W*$")
_TIE = re.compile(r"\b(?:tie|tied|draw)\b|\bequally (?:good|helpful|strong|matched|valid)\b|\bno (?:clear )?winner\b")
_ALIKE = re.compile(r"\b(?:equally|equal|identical|the same|comparable)\b")
_CONCLUSION = r"overall|final(?:ly)?|therefore|thus|hence|in conclusion|to conclude|ultimately|so"
_CONCLUDES = re.compile(rf"\b(?:{_CONCLUSION})\b")
_LEADING = re.compile(rf"^[^\w⟨]*(?:(?:{_CONCLUSION}|no|yes)\b[^\w⟨]*)+")
_ORDER = re.compile(rf"\W*{_ANY}\s*(>+|<+|=+)\s*{_ANY}\W*")
_STRAIGHT = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
_PARTS = re.compile(
    r"[.!?;:\n]+\s+|\n+|,\s+(?=while|though|although)|(?<!thing)(?<!all),?\s+\b(?:but|however|yet|whereas)\b,?\s+"
    r"|[,;]\s*(?:and\s+)?(?=(?:so|therefore|thus|hence)\b)|\s+(?=so\s+(?:⟨|i\b|my\b|we\b))"
)
_QUESTION = re.compile(r"[^.!?;\n]*\?")
_CONCEDED = re.compile(r"\b(?:while|although|even though|though|if|whereas)\b[^,.;:!?\n]*,")
_REASON_FIRST = re.compile(r"^\W*(?:because|since|as|given|considering|due to|seeing|for)\b[^,]*,\s*")
_REASON = re.compile(r"\b(?:because|since|due to|as it|as they|for being|given that|even though|although|despite)\b.*")
_HEADING = re.compile(_ANY + r"\s*:")


def spoken_verdict(text: str, labels: str) -> Verdict | None:
    """The verdict of sentences about answers that were called ``labels``, in the order shown."""
    text = _marked(text, labels)
    if len(set(_HEADING.findall(text))) == 2:  # "Response 1: 8/10, Response 2: 6/10" names both and decides nothing
        text = _HEADING.sub(r"\1 ", text)
    decided: list[tuple[Verdict, bool]] = []
    leaning: list[Verdict] = []
    for part in _PARTS.split(_CONCEDED.sub(" ", _QUESTION.sub(" ", text))):
        clause = _REASON.sub("", _REASON_FIRST.sub("", part)).strip()
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


def _marked(text: str, labels: str) -> str:
    """The text in lower case, with mentions of the two answers as marks and without quotes of them."""
    text = re.sub(r"```.*?(?:```|$)", " ", text, flags=re.DOTALL)
    text = re.sub(r"^\s*>.*$", " ", text, flags=re.MULTILINE)
    text = text.translate(_STRAIGHT)
    text = re.sub(r'"[^"\n]*"', lambda quote: quote[0].strip('"') if len(quote[0].split()) < 3 else " ", text)
    text = re.sub(r"[*_`]+|#(?=\s)", "", text)
    text = re.sub(rf"'s\s+{NOUN}\b", "", text, flags=re.IGNORECASE)
    flags = re.IGNORECASE if labels[0].lower() != labels[1].lower() else 0
    words = {"12": (r"(?i:1|one)", r"(?i:2|two)")}.get(labels, (re.escape(labels[0]), re.escape(labels[1])))
    for name, label, mark in zip(words, labels, (_FIRST, _SECOND), strict=True):
        word = rf"(?:{name})(?![\w'])"
        bare = rf"(?:{re.escape(label)})(?![\w'])"
        text = re.sub(rf"\b(?i:{NOUN})\s*(?i:number|no\.?)?\s*[#(:-]?\s*{word}\)?", mark, text, flags=flags)
        foreign = rf"(?i:{NAME})\s*[#(:-]?\s*(?:{re.escape(label)})(?![A-Za-z0-9'])\)?"
        text = re.sub(foreign, mark, text, flags=flags)
        text = re.sub(rf"(?<=⟩ and ){bare}|(?<=⟩ or ){bare}", mark, text, flags=flags)
        text = re.sub(rf"(?i:(\b(?:{_NAMED})(?: is)?\s*[:=]?)\s*){bare}", rf"\1 {mark}", text)
        text = re.sub(rf"(?:^|(?<=[.!?;:\n>]\s)|(?<=\bthan\s)){bare}(?=\s+(?:is|was|wins|would)\b|[.!]?$)", mark, text)
    text = text.lower()
    for ordinal, mark in _ORDINALS:
        text = re.sub(rf"\b(?:the )?(?:{ordinal})\s+(?:one|{NOUN})\b", mark, text)
        text = re.sub(rf"\bthe (?:{ordinal})(?=\s+(?:is|was|wins|would)\b|\W*$)", mark, text)
    return text


def _clause(clause: str) -> tuple[Verdict | None, Verdict | None]:
    """What one clause decides, and to what it leans."""
    clause = clause.replace("not only", "")
    if is_foreign(clause):
        mark = preferred(clause)
        return (_OF[mark] if mark else None), None
    if _NO_LESS.search(clause):
        return None, None
    worse = _WORSE_THAN.search(clause)
    if worse and worse[1] != worse[2]:
        return None, _OTHER[worse[1]]
    order = _ORDER.fullmatch(clause)
    if order:
        return _ordered(order), None
    beats = _BEATS.search(clause)
    clause = _LOSER.sub(" ", clause)
    marks = set(re.findall(_ANY, clause))
    if _NOT.search(clause) or _LESS.search(clause):
        return None, None
    if _BAD.search(clause):
        return None, _inferior(clause)
    if beats and not marks - {beats[1]}:
        return _OF[beats[1]], None
    return _decided(clause, marks), _leaning(clause, marks)


def _decided(clause: str, marks: set[str]) -> Verdict | None:
    """Whom a clause without denials calls the winner."""
    if _TIE.search(clause) and len(marks) != 1:
        return Verdict.tie
    if re.fullmatch(r"\W*" + _ANY + r"[\W⟨⟩]*", _LEADING.sub("", clause)) and len(marks) == 1:
        return _OF[next(iter(marks))]
    for pattern in (_CHOOSES, _NAMES, _IS_BEST):
        verdict = _single(pattern.findall(clause))
        if verdict is not None and (pattern is not _IS_BEST or len(marks) == 1):
            return verdict
    return None


def _leaning(clause: str, marks: set[str]) -> Verdict | None:
    """What a clause says in favour of one answer without deciding."""
    if len(marks) == 1 and (_IS_MORE.search(clause) or _THE_MORE.search(clause)):
        return _OF[next(iter(marks))]
    return Verdict.tie if _ALIKE.search(clause) else None


def _inferior(clause: str) -> Verdict | None:
    """The other answer than the one that a clause calls worse."""
    found = _IS_WORSE.search(clause)
    return _OTHER[next(filter(None, found.groups()))] if found else None


def _ordered(order: re.Match[str]) -> Verdict | None:
    """The winner in ``⟨2⟩ > ⟨1⟩``."""
    if order[1] == order[3]:
        return None
    return {">": _OF[order[1]], "<": _OF[order[3]], "=": Verdict.tie}[order[2][0]]


def _single(marks: Sequence[str]) -> Verdict | None:
    return _OF[marks[-1]] if len(set(marks)) == 1 else None
