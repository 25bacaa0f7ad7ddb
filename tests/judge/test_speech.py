"""Sentences by kind: whom each prefers is known from how it is made, and the wrong side must never be read.

``W`` and ``L`` stand for the winner's and the loser's names, in every form that a judge gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from prospect.judge import speech
from prospect.judge.verdict import Verdict, read_verdict
from tests.planted import plant

# Names of the two answers shown, and the labels that they were offered under.
NAMES = {
    "responses": ("Response 1", "Response 2", "12"),
    "full width": ("Response １", "Response ２", "12"),
    "letters": ("Assistant A", "Assistant B", "AB"),
    "labels turned": ("Answer 2", "Answer 1", "21"),
    "bold": ("**Response 1**", "**Response 2**", "12"),
    "ordinals": ("The first response", "The second response", "12"),
}
READ = [
    "W is better.",
    "W is better than L.",
    "W wins.",
    "W is the winner.",
    "W, not L.",
    "W beats L.",
    "I choose W.",
    "I prefer W over L.",
    "I would go with W rather than L.",
    "The better response is W.",
    "Winner: W",
    "L loses.",
    "L clearly loses overall.",
    "L loses to W.",
    "L is worse.",
    "L is worse than W.",
    "L is less helpful than W.",
    "L is not as good as W.",
    "Because it is accurate, W is better.",
    "Because L has errors, W is better.",
    "Since L ignores the question, I choose W.",
    "As L is wrong, W wins.",
    "Given that both are correct, I prefer W.",
    "L has errors, so W.",
    "L has errors, so W is better.",
    "L is too long, so I choose W.",
    "L invents facts; therefore, W.",
    "L is good, but W is better.",
    "L is better written, but overall W wins.",
    "L is more concise. Overall, W is better.",
    "While L is more detailed, W is better.",
    "Though longer, W is better.",
    "Is L better? No, W is.  W wins.",
    "W is more helpful.",
    "W is clearer and safer.",
    "The more accurate response is W.",
    "W is better because L is worse.",
    "W > L",
    "L << W",
]
UNREAD_OR_RIGHT = [  # a reader may miss them, but must not take the other side
    "Not L but W.",
    "L is more harmful.",
    "L is more verbose and repeats itself.",
    "L is more biased than W.",
    "L is the poorer one.",
    "L is slower to get to the point.",
    "L makes more errors.",
    "I prefer L less.",
    "I like L least.",
    "I would choose anything but L.",
    "I would avoid choosing L.",
    "The worst response is L.",
    "The losing answer is L.",
    "The more harmful response is L.",
    "The weaker response is L.",
    "L fails to beat W.",
    "L would be better if it were correct.",
    "L could be better.",
    "L is better at being wrong.",
    "It is hard to say that L is better.",
    "Nobody would say that L is better.",
    "I doubt that L is better.",
    "W is no worse than L, and wins.",
    "If L were shorter, it would win, but W is better.",
    "I reject L.",
    "L is not better; W is.",
    "L isn't the winner.",
    "L is beaten by W.",
    "L lacks detail.",
    "L has 2 errors and W has 1.",
]
NOTHING = [
    "Both are good.",
    "Neither W nor L is good.",
    "W: 8/10, L: 9/10",
    "W could be better.",
    "Is W better?",
    "Either W or L is better.",
    "W is better. L is better.",
    "I cannot say whether W is better.",
    "If W were shorter, it would win",
]
FOREIGN = {  # names, then sentences that are read
    "German": ("Antwort", ["W ist besser.", "W ist besser als L.", "Ich wähle W.", "W", "W gewinnt."]),
    "French": ("La réponse", ["W est meilleure.", "W est meilleure que L.", "Je choisis W."]),
    "Spanish": ("La respuesta", ["W es mejor.", "W es mejor que L.", "Elijo W."]),
    "Portuguese": ("Resposta", ["W é melhor.", "W é melhor do que L."]),
    "Italian": ("Risposta", ["W è migliore.", "Scelgo W."]),
    "Dutch": ("Antwoord", ["W is beter.", "W is beter dan L."]),
    "Russian": ("Ответ", ["W лучше.", "W лучше, чем L.", "Я выбираю W."]),
    "Chinese": ("回答", ["W更好。", "W比L更好。", "我选择W", "最终答案: W", "W"]),
    "Japanese": ("回答", ["Wの方が良いです。", "Wが優れています。"]),
    "Korean": ("답변", ["W이 더 좋습니다."]),
}
FOREIGN_DOUBT = {
    "German": (
        "Antwort",
        ["L ist nicht besser.", "L wäre besser, wenn sie kürzer wäre.", "Weder L noch W ist besser."],
    ),
    "French": ("La réponse", ["L n'est pas meilleure.", "L serait meilleure si elle était plus courte."]),
    "Spanish": ("La respuesta", ["L no es mejor.", "L sería mejor si fuera corta.", "L es menos mejor."]),
    "Russian": ("Ответ", ["L не лучше.", "L был бы лучше."]),
    "Chinese": ("回答", ["L不如W。", "L并不更好。", "如果L更短就更好。", "L可能更好。", "W比L更好吗"]),
    "Japanese": ("回答", ["Lの方が良いとは言えない。"]),
}


def said(sentence: str, names: tuple[str, str], winner: Verdict) -> str:
    better, worse = names if winner is Verdict.first else names[::-1]
    return re.sub("[WL](?![a-z])", lambda name: better if name[0] == "W" else worse, sentence)


def spellings() -> Iterator[tuple[tuple[str, str], str, Verdict]]:
    for first, second, labels in NAMES.values():
        yield (first, second), labels, Verdict.first
        yield (first, second), labels, Verdict.second


def wrong(sentence: str, must: bool) -> list[str]:
    """In which forms a sentence is read as the other side; with ``must`` also where it is not read."""
    found = []
    for names, labels, winner in spellings():
        text = said(sentence, names, winner)
        verdict = read_verdict(text, labels)
        if verdict is not winner and (must or verdict is not None):
            found.append(f"{text!r}: {verdict}")
    return found


@pytest.mark.parametrize("sentence", READ)
def test_sentences_that_are_read(sentence):
    assert not wrong(sentence, must=True)


@pytest.mark.parametrize("sentence", UNREAD_OR_RIGHT)
def test_never_the_wrong_side(sentence):
    assert not wrong(sentence, must=False)


@pytest.mark.parametrize("sentence", NOTHING)
def test_doubt_is_nothing(sentence):
    for names, labels, winner in spellings():
        assert read_verdict(said(sentence, names, winner), labels) in (None, Verdict.tie)


def test_planted_bug_any_comparative_counts_is_seen(monkeypatch):
    monkeypatch.setattr(speech, "_IS_MORE", re.compile(speech._ANY + r"[^⟨]*\bmore \w+"))
    assert wrong("L is more harmful.", must=False)


def test_planted_bug_reasons_that_come_first_are_seen(monkeypatch):
    plant(monkeypatch, speech.spoken_verdict, '_REASON_FIRST.sub("", part)', "part")
    assert wrong("Because L has errors, W is better.", must=True)


@pytest.mark.parametrize("language", FOREIGN)
def test_other_languages(language):
    noun, sentences = FOREIGN[language]
    gap = "" if noun in ("回答", "답변") else " "
    for sentence in sentences:
        for winner in (Verdict.first, Verdict.second):
            text = said(sentence, (f"{noun}{gap}1", f"{noun}{gap}2"), winner)
            assert read_verdict(text, "12") is winner, text
            text = said(sentence, (f"{noun}{gap}Ａ", f"{noun}{gap}Ｂ"), winner)
            assert read_verdict(text, "AB") is winner, text


@pytest.mark.parametrize("language", FOREIGN_DOUBT)
def test_doubt_in_other_languages(language):
    noun, sentences = FOREIGN_DOUBT[language]
    for sentence in sentences:
        for winner in (Verdict.first, Verdict.second):
            text = said(sentence, (f"{noun} 1", f"{noun} 2"), winner)
            assert read_verdict(text, "12") in (None, winner), text


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("[[A]] is not better.", "AB", None),
        ("I prefer [[A]] over [[B]]", "AB", None),
        ("I must answer [[A]], [[B]] or [[C]].", "AB", None),
        ("At first [[A]]. Final verdict: [[B]]", "AB", Verdict.second),
        ('{"verdict": {"winner": 1}}', "12", Verdict.first),
        ('{"response_1": 8, "response_2": 6}', "12", None),
        ('{"winner": null}', "12", None),
        ('{"winner": "both"}', "12", None),
        ('{"winner": "Response ２"}', "12", Verdict.second),
        ("答案：２", "12", Verdict.second),
        ("Final answer: 2.", "12", Verdict.second),
        ("There are 2 reasons.", "12", None),
        ("１", "12", Verdict.first),
    ],
)
def test_forms(text, labels, expected):
    assert read_verdict(text, labels) is expected
