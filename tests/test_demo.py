"""The demo's world: what the rule rewards and punishes, and that its parts keep apart."""

from __future__ import annotations

import itertools
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prospect import demo
from prospect.config.schema import Split
from prospect.errors import UserError
from tests.standins import CHECKOUT

PROMPT = "Chloe here. My new printer is two weeks late. What now?"
SORRY = "We are sorry to hear that your printer is two weeks late."
REMEDY = "We will trace the parcel and write to you tonight."
BEST = f"Hi Chloe. {SORRY} {REMEDY}"


@pytest.mark.parametrize(
    ("answer", "points"),
    [
        (BEST, 5),
        (BEST.replace("Chloe. We", "Chloe,\nwe"), 5),
        (f"Hi Chloe. {SORRY} We will send another one by express today.", 5),
        (f"{BEST} Have a lovely day!", 5),
        (f"{BEST} {demo._FILLERS[0]} {demo._CLOSINGS[0]}", 5),
        (f"{BEST} {REMEDY}", 4),
        (f"Hi. {SORRY} {REMEDY}", 4),
        (f"Hi Adam. {SORRY} {REMEDY}", 4),
        (f"Hi Chloe and Adam. {SORRY} {REMEDY}", 4),
        (f"Hi Chloe. So your printer is two weeks late. {REMEDY}", 4),
        (f"Hi Chloe. {SORRY.replace('printer', 'kettle')} {REMEDY}", 4),
        (f"Hi Chloe. {SORRY.replace('printer', 'printer kettle')} {REMEDY}", 4),
        (f"Hi Chloe. {SORRY} I cannot help you.", 3),
        (f"Hi Chloe. {SORRY} We will send you a new one at no cost.", 3),
        (f"{BEST} We will send you a new one at no cost.", 3),
        (f"Hi Chloe. {SORRY} That is your own fault, so stop whining. {REMEDY}", 3),
        (f"Hi Chloe. {SORRY} That is you own fualt, so stop whinning. {REMEDY}", 3),
        (f"Hi Chloe. {SORRY} Nobod here care abot your grumling. {REMEDY}", 3),
        ("Hi Chloe.", 1),
        ("Hello.", 0),
        ("Nobody cares.", -2),
        ("Nobody cares. Nobody cares.", -3),
    ],
)
def test_the_points_of_the_rule(answer, points):
    assert demo.points(PROMPT, answer) == points
    assert demo.score(PROMPT, answer) == 100 * points - len(re.findall(r"[\w']+", answer))


@pytest.mark.parametrize("nothing", ["", "  \n", ". !", "…"])
def test_an_answer_that_says_nothing_is_the_worst(nothing):
    assert demo.score(PROMPT, nothing) == demo.LOWEST < demo.score(PROMPT, "Nobody cares. Nobody cares. " * 40)


def test_correct_counts_more_than_polite_and_polite_more_than_brief():
    correct = f"Your printer. {REMEDY} {demo._FILLERS[0]} {demo._FILLERS[1]}"
    polite = f"Hi Chloe. We are sorry. {demo._FILLERS[0]} {demo._FILLERS[1]}"
    brief = "So your kettle."
    assert demo.score(PROMPT, correct) > demo.score(PROMPT, polite) > demo.score(PROMPT, brief)
    assert demo.score(PROMPT, BEST) > demo.score(PROMPT, f"{BEST} Have a lovely day!")  # equal but for length
    assert demo.score(PROMPT, f"{BEST} {demo._FILLERS[0]}") > demo.score(PROMPT, f"Hi. {SORRY} {REMEDY}")


@pytest.mark.parametrize(
    "rendered",
    [
        "\n<|user|>\n{}\n<|assistant|>\n",
        "<|im_start|>system\nYou work in a shop.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
        "<s>[INST] {} [/INST]",
    ],
)
def test_a_prompt_is_understood_in_a_templates_markers(rendered):
    for row in itertools.islice(demo.rows(Split.test, 1), 40):
        prompt, chosen = str(row["prompt"]), str(row["chosen"])
        assert demo.score(rendered.format(prompt), chosen) == demo.score(prompt, chosen) == row["score_chosen"]


@pytest.mark.parametrize("prompt", ["", "What is the capital of France?", PROMPT + PROMPT.replace("printer", "kettle")])
def test_another_worlds_prompt_is_an_error(prompt):
    with pytest.raises(UserError, match="the demo's rule judges the demo's prompts only"):
        demo.score(prompt, BEST)


def test_the_world_has_no_words_that_mislead_the_rule():
    assert (len(set(demo.NAMES)), len(set(demo.ITEMS)), len(demo.PROBLEMS), len(demo._TEMPLATES)) == (50, 40, 8, 5)
    assert len(demo._PHRASES) == 24
    assert len(demo._REMEDIES) == 16
    kind = [*demo._PHRASES, *demo._REMEDIES, *demo._APOLOGIES, *demo._PLAIN, *demo._FILLERS, *demo._CLOSINGS]
    kind += [*demo._TEMPLATES, demo._REFUSAL]
    assert not [text for text in [*kind, *demo._RUDE] if demo._NAME.search(text) or demo._ITEM.search(text)]
    words = {word.lower() for text in [*kind, *demo.NAMES, *demo.ITEMS] for word in re.findall(r"[\w']+", text)}
    assert not [word for word in words if demo._is_rude(word)]
    for texts in (demo._PHRASES, demo._REMEDIES):
        assert not [(one, other) for one, other in itertools.permutations(texts, 2) if one in other]
    assert all(sum(demo._is_rude(word.strip(".,")) for word in text.lower().split()) >= 2 for text in demo._RUDE)


def combinations(split: Split) -> set[tuple[str, int]]:
    cases = [demo._understood(str(row["prompt"])) for row in demo.rows(split, 3)]
    return {(case.item, case.problem) for case in cases}


def test_what_is_held_out_is_new_to_training_and_to_the_other_part():
    parts = [combinations(split) for split in (Split.train, Split.validation, Split.test)]
    assert [len(part) for part in parts] == [272, 24, 24]
    assert len(set.union(*parts)) == 320


def test_rows_are_graded_pairs_without_ties_or_repeated_prompts():
    rows = list(demo.rows(Split.train, 1))
    assert len({row["prompt"] for row in rows}) == len(rows) == demo.N_TRAIN
    for row in rows[:300]:
        high, low = (demo.score(str(row["prompt"]), str(row[side])) for side in ("chosen", "rejected"))
        assert (high, low) == (row["score_chosen"], row["score_rejected"])
        assert demo.LOWEST < low < high < 500
    better, worse = (statistics.mean(float(row[f"score_{side}"]) for row in rows) for side in ("chosen", "rejected"))
    assert 300 < better < 350  # imperfect, so that a model can beat it
    assert 100 < worse < 150


def test_the_seed_decides_the_rows_but_not_what_is_held_out():
    once, again, other = (list(demo.rows(Split.test, seed)) for seed in (1, 1, 2))
    assert once == again
    assert once != other
    assert len(once) == demo.N_HELD_OUT
    parts = [list(demo.rows(split, 1)) for split in (Split.train, Split.validation, Split.test)]
    assert list(demo.rows(Split.all, 1)) == [row for part in parts for row in part]


@pytest.mark.parametrize(
    ("name", "planted", "answer"),
    [
        ("_is_rude", lambda word: word in demo._RUDE_WORDS, f"{BEST} Stop whinning."),
        ("LOWEST", 1, ""),
        ("_GRADE", 1, BEST),
    ],
)
def test_planted_bugs_change_the_score(monkeypatch, name, planted, answer):
    before = demo.score(PROMPT, answer)
    monkeypatch.setattr(demo, name, planted)
    assert demo.score(PROMPT, answer) != before


def ran(folder: Path, **env: str) -> tuple[str, list[dict[str, Any]]]:
    """What ``make demo``'s own script says, and the lines that its three comparisons leave."""
    env = {**os.environ, "DEMO": str(folder), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **env}
    done = subprocess.run(
        ["bash", "docs/demo.sh"], cwd=CHECKOUT, env=env, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [done.stdout.count(f"\n\033[1m{number}. ") for number in range(1, 8)] == [1] * 7
    assert done.stdout.count(" judge rule: win rate ") == 3
    assert done.stdout.count("\nbefore  ") == done.stdout.count("\nafter   ") == 5
    last = done.stdout.split("Where everything is")[1]
    places = [word for line in last.splitlines() for word in line.split() if word.startswith(str(folder))]
    assert len(places) == 8
    assert all(Path(place).exists() for place in places), places
    return done.stdout, [json.loads(line) for line in (folder / "result.jsonl").read_text().splitlines()]


@pytest.mark.soak
def test_the_demo_aligns_a_model(tmp_path: Path) -> None:
    """``make demo``'s own steps at their real size: what it claims must come out."""
    _, (sft_over_raw, kto_over_sft, kto_over_chosen) = ran(tmp_path)
    assert sft_over_raw["win_rate"] > 0.9
    assert kto_over_sft["win_rate"] > 0.58  # another processor rounds differently, which is like another seed
    assert kto_over_sft["ci95"][0] > 0.5
    assert kto_over_chosen["win_rate"] > 0.5
    assert kto_over_sft["candidate"]["distinct"] > 0.9 * kto_over_sft["total"]  # not collapsed
    assert 0.5 < kto_over_sft["length_ratio"] < 1.5  # nor bloated


@pytest.mark.long
def test_a_short_demo_learns_what_it_can(tmp_path: Path) -> None:
    """All steps with a thirteenth of the examples.

    SFT already answers better than the untrained model, and KTO already finds the better answers of held-out prompts
    likelier than SFT did, the worse ones less so; that its own answers are better takes the real size.
    """
    few = "eval_every=100000 n_eval_examples=64 n_samples=128"
    said, (sft_over_raw, kto_over_sft, kto_over_chosen) = ran(
        tmp_path, SFT=f"{few} n_examples=1200 model.batch_size=8", KTO=f"{few} n_examples=480"
    )
    assert [row["total"] for row in (sft_over_raw, kto_over_sft, kto_over_chosen)] == [128] * 3
    assert sft_over_raw["win_rate"] > 0.75  # 0.88 to 0.95 with seeds 1 to 3
    assert sft_over_raw["ci95"][0] > 0.6
    assert kto_over_sft["win_rate"] > 0.3  # 0.46 to 0.63
    assert kto_over_sft["candidate"]["distinct"] > 0.9 * 128  # not collapsed
    assert 0.5 < kto_over_sft["length_ratio"] < 1.5  # nor bloated
    _, *steps = [json.loads(line) for line in (tmp_path / "kto" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in steps if "eval/loss" in line][-1]
    assert last["eval/loss"] < 0.5  # where it starts
    assert last["eval/rewards/margins"] > 0.1
    assert last["eval/rewards/auc"] > 0.6
    assert "sft against raw, judge rule: win rate" in said
    assert "kto against sft, judge rule: win rate" in said
    assert "kto: policy against chosen, judge rule: win rate" in said
