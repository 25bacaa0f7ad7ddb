"""The demo's world: customers who write to a shop, answers of mixed quality, and the rule that judges them.

Because a rule makes the preferences, the judge that applies the same rule knows the truth: whether training worked can
be read off without asking anyone. Prompts for validation and test are about (item, problem) combinations that training
never sees, and different ones for the two.
"""

from __future__ import annotations

import difflib
import functools
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prospect.config.schema import Split
from prospect.errors import UserError

LOWEST = -1000  # the score of an answer that says nothing

N_TRAIN = 4000
N_HELD_OUT = 256  # prompts, each for validation and test
_HELD_OUT_COMBINATIONS = 24  # of 320, each for validation and test
_GRADE = 100  # what a point weighs in words
_WORD = re.compile(r"[\w']+")

NAMES = (
    *("Adam", "Alice", "Amir", "Anna", "Ben", "Bella", "Boris", "Carla", "Chloe", "Clara", "Daniel", "Diego"),
    *("Elena", "Emma", "Erik", "Farid", "Fiona", "Gina", "Hanna", "Hugo", "Ines", "Ivan", "Jane", "Jonas"),
    *("Julia", "Karim", "Katia", "Laura", "Leon", "Lucas", "Maria", "Martin", "Mina", "Nadia", "Nina", "Noah"),
    *("Olga", "Omar", "Paula", "Peter", "Rania", "Robert", "Samir", "Sara", "Simon", "Sofia", "Thomas", "Vera"),
    *("Victor", "Yusuf"),
)
ITEMS = (
    *("printer", "kettle", "toaster", "blender", "camera", "keyboard", "monitor", "lamp", "radio", "speaker"),
    *("heater", "fan", "vacuum cleaner", "mixer", "drill", "tablet", "phone", "watch", "router", "scanner"),
    *("projector", "microphone", "freezer", "fridge", "oven", "dishwasher", "hair dryer", "razor", "toothbrush"),
    *("thermostat", "doorbell", "alarm clock", "piano", "amplifier", "game console", "treadmill"),
    *("coffee machine", "rice cooker", "sewing machine", "lawn mower"),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What can go wrong with an item: three ways to say it, two sentences that put it right."""

    phrasings: tuple[str, str, str]
    remedies: tuple[str, str]


PROBLEMS = (
    Problem(
        ("has not arrived yet", "is two weeks late", "is still somewhere in the post"),
        ("We will trace the parcel and write to you tonight.", "We will send another one by express today."),
    ),
    Problem(
        ("arrived broken", "came with a big crack", "was damaged on the way"),
        ("We will send you a new one at no cost.", "We will collect it and bring you a fresh one."),
    ),
    Problem(
        ("came in the wrong colour", "is blue instead of black", "looks nothing like the picture"),
        ("We will swap it for the colour you chose.", "You may exchange it for the right model this week."),
    ),
    Problem(
        ("is missing a part", "came without its cable", "lacks two screws"),
        ("We will post the missing part tomorrow.", "The missing part will be with you on Friday."),
    ),
    Problem(
        ("came without a manual", "is hard to set up", "is a puzzle to put together"),
        ("We will email you a clear guide right away.", "One of us will call and go through each step with you."),
    ),
    Problem(
        ("was charged twice", "cost more than the tag said", "was billed at the wrong price"),
        ("We will pay the extra money back to your card.", "The amount you overpaid is on its way back to you."),
    ),
    Problem(
        ("stopped working", "died after one day", "no longer turns on"),
        ("We will refund the full price today.", "We will repair it for free under the warranty."),
    ),
    Problem(
        ("makes a loud noise", "hums all night", "rattles when it runs"),
        ("A technician will visit you on Monday.", "We will come to your home and mend it there."),
    ),
)
_TEMPLATES = (
    "{name} here. My new {item} {problem}. What now?",
    "Hi, I am {name}. The {item} I bought {problem}. Can you help?",
    "Hello, this is {name}. My {item} {problem}. What can you do?",
    "My {item} {problem}. Please help me. Thank you, {name}",
    "Good morning! My new {item} {problem}. What should I do? Best wishes, {name}",
)
_APOLOGIES = (
    "We are sorry to hear that your {item} {problem}.",
    "We apologise that your {item} {problem}.",
)
_PLAIN = ("So your {item} {problem}.", "You say that your {item} {problem}.")
_RUDE = (
    "That is your own fault, so stop whining.",
    "Nobody here cares about your grumbling.",
    "Only a fool would bother us with such nonsense.",
)
_REFUSAL = "I cannot help you."
_FILLERS = (
    "Our shop has been in the same street for many years and sells all kinds of things.",
    "As you may know, there are many rules that we all have to follow every day.",
)
_CLOSINGS = ("Have a lovely day!", "Thank you for your patience.")

_PHRASES: Mapping[str, int] = {text: index for index, problem in enumerate(PROBLEMS) for text in problem.phrasings}
_REMEDIES: Mapping[str, int] = {text: index for index, problem in enumerate(PROBLEMS) for text in problem.remedies}
_RUDE_WORDS = ("fault", "whining", "nobody", "cares", "grumbling", "fool", "bother", "nonsense")


def _any_of(texts: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, texts))})\b")


_NAME, _ITEM, _PHRASE = _any_of(NAMES), _any_of(ITEMS), _any_of(tuple(_PHRASES))


@dataclass(frozen=True, slots=True)
class _Case:
    """Who writes about what."""

    name: str
    item: str
    phrase: str

    @property
    def problem(self) -> int:
        return _PHRASES[self.phrase]


def score(prompt: str, answer: str) -> int:
    """The rule: how good an answer is. Correct counts most, then polite; of two that are equal the briefer is better.

    100 for each point (see ``points``), less 1 for each word up to 99; LOWEST for an answer that says nothing.
    ``prompt`` may stand in a chat template's markers.
    """
    words = len(_WORD.findall(answer))
    return _GRADE * points(prompt, answer) - min(words, _GRADE - 1) if words else LOWEST


def points(prompt: str, answer: str) -> int:
    """How correct and polite an answer is, from -3 to 5.

    Correct: 2 for a remedy for this problem and no other, 1 for this item and no other. Polite: 1 for this customer's
    name and no other, 1 for an apology, -2 for a rude word, however misspelt; -1 for a sentence said twice.
    """
    case = _understood(prompt)
    sentences = [sentence.strip() for sentence in re.findall(r"[^.!?]+[.!?]*", answer) if sentence.strip()]
    item = set(_ITEM.findall(answer)) == {case.item}
    remedy = {problem for text, problem in _REMEDIES.items() if text in answer} == {case.problem}
    name = set(_NAME.findall(answer)) == {case.name}
    apology = bool(re.search(r"\b(?:sorry|apolog)", answer, re.IGNORECASE))
    rude = any(_is_rude(word.lower()) for word in _WORD.findall(answer))
    repeated = len(set(sentences)) < len(sentences)
    return 2 * remedy + item + name + apology - 2 * rude - repeated


def rows(split: Split, seed: int) -> Iterator[Mapping[str, str | int]]:
    """Pairs of one part: ``prompt, chosen, rejected, score_chosen, score_rejected``. No prompt comes twice."""
    if split is Split.all:
        for part in (Split.train, Split.validation, Split.test):
            yield from rows(part, seed)
        return
    rng = random.Random(f"{split.value} {seed}")
    combinations, seen = _combinations()[split], set[str]()
    while len(seen) < (N_TRAIN if split is Split.train else N_HELD_OUT):
        item, problem = rng.choice(combinations)
        case = _Case(rng.choice(NAMES), item, rng.choice(PROBLEMS[problem].phrasings))
        prompt = rng.choice(_TEMPLATES).format(name=case.name, item=item, problem=case.phrase)
        (low, rejected), (high, chosen) = sorted(
            (score(prompt, text), text) for text in (_draw(rng, case), _draw(rng, case))
        )
        if low < high and prompt not in seen:
            seen.add(prompt)
            yield {
                "prompt": prompt,
                "chosen": chosen,
                "rejected": rejected,
                "score_chosen": high,
                "score_rejected": low,
            }


def _draw(rng: random.Random, case: _Case) -> str:
    """An answer in which each virtue is present or absent by chance."""

    def likely(share: float) -> bool:
        return rng.random() < share

    facts = {"item": case.item if likely(0.85) else rng.choice(ITEMS), "problem": case.phrase}
    if likely(0.65):
        remedy = rng.choice(PROBLEMS[case.problem].remedies)
    else:
        remedy = rng.choice((_REFUSAL, rng.choice(tuple(_REMEDIES))))
    greeting = rng.choice(("Hi", "Hello"))
    parts = (
        f"{greeting} {case.name}." if likely(0.5) else f"{greeting}.",
        rng.choice(_APOLOGIES if likely(0.5) else _PLAIN).format(**facts),
        "" if likely(0.65) else rng.choice(_RUDE),
        remedy,
        "" if likely(0.6) else rng.choice(_FILLERS),
        rng.choice(_CLOSINGS) if likely(0.4) else "",
    )
    return " ".join(part for part in parts if part)


@functools.cache
def _combinations() -> Mapping[Split, tuple[tuple[str, int], ...]]:
    """(item, problem) combinations of each part; the same for every seed, so that no run has seen another's test."""
    every = [(item, problem) for item in ITEMS for problem in range(len(PROBLEMS))]
    random.Random("combinations").shuffle(every)
    n = _HELD_OUT_COMBINATIONS
    return {
        Split.validation: tuple(every[:n]),
        Split.test: tuple(every[n : 2 * n]),
        Split.train: tuple(every[2 * n :]),
    }


@functools.lru_cache(maxsize=1)  # several answers to one prompt are judged in a row
def _understood(prompt: str) -> _Case:
    found = [set(pattern.findall(prompt)) for pattern in (_NAME, _ITEM, _PHRASE)]
    if any(len(matches) != 1 for matches in found):
        raise UserError(
            f"the demo's rule judges the demo's prompts only; this is none of them: {prompt.strip()[:80]!r}"
        )
    name, item, phrase = (matches.pop() for matches in found)
    return _Case(name, item, phrase)


@functools.cache
def _is_rude(word: str) -> bool:
    """Whether a word is one of the rude ones or, as a small model spells, nearly so."""
    return bool(difflib.get_close_matches(word, _RUDE_WORDS, n=1, cutoff=0.8))
