"""The page of a comparison: its figures, what it is made from, and what a reader can do with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prospect.errors import UserError
from prospect.judge import commands
from prospect.judge.options import parse
from prospect.judge.stage import compare
from prospect.report import comparison, page, panels
from prospect.report.comparison import load
from prospect.report.page import render
from prospect.stats import length
from tests.browser import PROGRAM, Browser
from tests.planted import plant

SIZES = ((0, 60, "short"), (60, 100, "long"))


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., Path]:
    """Judges a run of the longest-answer judge against the same baseline; the results file."""

    def judge(name: str, *flags: str, n: int = 100, better: int = 70) -> Path:
        rows: list[dict[str, Any]] = []
        for i in range(n):
            kind = next(kind for low, high, kind in SIZES if low <= i % 100 < high)
            policy = f"An answer that is {'rather ' * (i % 5 + 1)}long, number {i}." if i % 100 < better else f"no {i}"
            rows.append(
                {"prompt": f"Question {i}?", "policy": policy, "chosen": f"A middling answer {i}.", "dataset": kind}
            )
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"config": {"exp_name": name}, "samples": rows}))
        results = tmp_path / "result.jsonl"
        assert compare(parse(["-f", str(file), "-j", "longest", "-r", str(results), *flags])) == 0
        return results

    return judge


def hosted(stub: Any, samples: Path, *flags: str) -> Path:
    """The stub's verdicts on the forty samples, in both orders."""
    base = samples.parent
    given = ["-f", str(samples), "-j", "stub", "--base-url", stub.url, "-r", str(base / "result.jsonl")]
    compare(parse([*given, "--cache", str(base / "cache"), *flags]))
    return base / "result.jsonl"


def words(html: str) -> str:
    """The page's text without its data."""
    body = re.sub(r"<(style|script)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def rows(html: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return list(json.loads(found[1])["rows"])


def test_compare_writes_the_page_of_its_result(judged, tmp_path):
    results = judged("kto", "--report", str(tmp_path / "page.html"))
    record = json.loads(results.read_text())
    html = (tmp_path / "page.html").read_text()
    text = words(html)
    assert f"Win rate {record['win_rate']:.1%}" in text
    low, high = (100 * end for end in record["ci95"])
    assert f"95% interval {low:.1f} to {high:.1f}" in text
    assert "kto against chosen" in text
    assert "wins 70 ties 0 losses 30" in text
    assert "short · 60" in text
    assert "long · 40" in text
    assert f"At equal length the win rate would be {record['lc']['rate']:.1%}" in text
    assert '<polyline class="fit"' in html
    assert len(rows(html)) == 100
    assert record["candidate"]["sha256"] in text
    assert "<" not in html.split('id="data">')[1].split("</script>")[0]


def test_report_makes_the_same_page_from_results_and_from_judgments(judged, tmp_path, capsys):
    results = judged("kto", "--report", str(tmp_path / "page.html"))
    capsys.readouterr()
    judgments = json.loads(results.read_text())["judgments"]
    for source in (str(results), judgments):
        assert commands.run(["report", source, "-o", str(tmp_path / "again.html"), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["candidate"], found["pairs"]) == ("kto", 100)
        assert (tmp_path / "again.html").read_text() == (tmp_path / "page.html").read_text()


def test_results_that_were_moved_find_their_judgments(judged, tmp_path):
    results = judged("kto")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("result.jsonl", "judgments"):
        (results.parent / name).rename(moved / name)
    assert len(load(moved / "result.jsonl").outcomes) == 100


def test_runs_stand_in_one_table_only_if_they_were_judged_alike(judged, capsys):
    judged("sft", better=40)
    judged("sft", better=50)
    judged("dpo", better=60)
    results = judged("kto")
    found = load(results)
    assert {comparison.name_of(line) for line in found.others} == {"sft", "dpo"}
    text = words(render(found))
    assert "Runs kto 70.0%" in text
    assert "sft 50.0%" in text, "the newest line of a run"
    strange = json.loads(results.read_text().splitlines()[0])
    strange |= {"judge": "another", "exp_name": "stranger"}
    lines = results.read_text()
    results.write_text(json.dumps(strange) + "\n" + lines)
    assert "stranger" not in words(render(load(results, only="kto")))
    assert load(results, only="dpo").candidate == "dpo"
    with pytest.raises(UserError, match="no comparison of `ppo`; there are"):
        load(results, only="ppo")


def test_orders_and_what_is_unparsed(stub, samples):
    stub.judge = lambda first, second: "no idea" if "mumble" in first + second else "Response 2"
    html = render(load(hosted(stub, samples)))
    text = words(html)
    assert "Shown second rather than first: +100.0 points" in text
    assert "100% of 38 verdicts change with the order" in text
    assert "The judge prefers the answer shown second" in text
    assert "2 pairs are not counted (2 without a verdict)" in text
    assert sum("order" in row["why"] for row in rows(html)) == 38
    crossing = panels.crossing(load(samples.parent / "result.jsonl").outcomes, 0)
    assert crossing is not None
    assert crossing.counts == ((0, 0, 0), (0, 0, 0), (38, 0, 0))
    assert (crossing.first.mean, crossing.second.mean) == (0.0, 1.0)


def test_other_judges_of_the_same_pairs_are_shown(stub, samples):
    stub.judge = lambda first, second: "Response 1" if len(first) < len(second) else "Response 2"
    hosted(stub, samples)
    results = samples.parent / "result.jsonl"
    compare(parse(["-f", str(samples), "-j", "longest", "-r", str(results)]))
    html = render(load(results))
    found = rows(html)
    assert re.search(r"Judges longest [\d.]+% .* stub agrees on \d+% of 40 pairs, kappa -?0\.", words(html))
    against = [row for row in found if "judges" in row["why"]]
    assert len(against) > 20
    assert all(row["others"] == [["stub", 1 - row["score"]]] for row in against if row["score"] in (0, 1))


def test_people_who_saw_some_of_the_pairs(judged, tmp_path, capsys):
    results = judged("kto")
    labels = tmp_path / "labels.jsonl"
    found = rows(render(load(results)))
    ids = [outcome.pair.prompt_id for outcome in load(results).outcomes[:20]]
    people = [{"prompt_id": key, "label": "candidate", "annotator": name} for key in ids for name in ("Ann", "Ben")]
    labels.write_text("".join(json.dumps(row) + "\n" for row in people))
    out = tmp_path / "page.html"
    assert commands.run(["report", str(results), "--human", str(labels), "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["labelled_by_people"] == 20
    lost = sum(row["score"] == 0 for row in found[:20])
    assert f"The judge agrees with people on {1 - lost / 20:.1%} of 20 pairs" in words(out.read_text())
    again = rows(out.read_text())
    assert again[0]["people"] == [["Ann", "candidate"], ["Ben", "candidate"]]
    assert sum("people" in row["why"] for row in again) == lost > 0


def test_a_comparison_that_stopped_early_keeps_its_wider_interval(judged, tmp_path):
    results = judged("kto", "--stop-early", "--report", str(tmp_path / "page.html"), better=95)
    record = json.loads(results.read_text())
    low, high = (100 * end for end in record["ci95"])
    assert f"95% interval {low:.1f} to {high:.1f}, valid at every look" in words((tmp_path / "page.html").read_text())


def test_length_bins_hold_every_pair_once_and_equal_differences_together(judged: Callable[..., Path]) -> None:
    found = load(judged("kto")).outcomes
    points = panels.by_length(found, 0)
    assert len(points) > 3
    assert sum(point.n for point in points) == len(found)
    assert [point.x for point in points] == sorted({point.x for point in points})
    assert points[0].mean == 0.0
    assert points[-1].mean == 1.0


def test_planted_bug_bins_by_rank_are_seen(judged: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, panels.by_length, "bisect.bisect_right(edges, gap)", "len(found) * 7 % 5")
    with pytest.raises(AssertionError):
        test_length_bins_hold_every_pair_once_and_equal_differences_together(judged)


def test_results_of_halos_give_a_page_without_pairs(tmp_path, capsys):
    side = {"name": "policy", "wins": 60, "lengths": [1]}
    line = {"date": "2024-01-07", "total": 110, "seed": 0, "exp_name": "archangel_kto", "judge": "gpt-4-0613"}
    line |= {"candidate": side, "baseline": side | {"name": "chosen", "wins": 40}, "config": {}}
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps(line | {"exp_name": "archangel_sft"}) + "\n" + json.dumps(line) + "\n")
    assert commands.run(["report", str(file), "-o", str(tmp_path / "page.html")]) == 0
    text = words((tmp_path / "page.html").read_text())
    assert "Win rate 60.0% 95% interval 49.7 to 69.7, exact" in text
    assert "There are no judgments beside these results" in text
    assert "Runs archangel_" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\n', "neither results nor judgments"),
        ("[1]\n", "expected an object"),
        ("", "no rows"),
        ("not JSON", "line 1: "),
        ('{"games": 1}\n', "not as compare.py writes it"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, message):
    file = tmp_path / "some.jsonl"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        commands.run(["report", str(file), "-o", str(tmp_path / "page.html")])


@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")
def test_five_thousand_pairs_are_drawn_a_page_at_a_time_and_can_be_searched(judged, tmp_path, monkeypatch):
    monkeypatch.setattr(length, "_DRAWS", 100)
    results = judged("kto", "--report", str(tmp_path / "page.html"), n=5000)
    assert results.exists()
    pairs = "document.querySelectorAll('.pair').length"
    with Browser(tmp_path / "chromium") as browser:
        browser.open(tmp_path / "page.html")
        assert browser.run(pairs) == 50
        assert browser.run("document.getElementById('found').textContent") == "5,000 of 5,000 pairs"
        wait = "new Promise((done) => setTimeout(done, 400))"
        browser.run(
            f"document.getElementById('words').value='QUESTION 4321?'; words.dispatchEvent(new Event('input')); {wait}"
        )
        assert browser.run(pairs) == 1
        opened = "document.querySelector('.pair').open = true;" + wait
        browser.run(f"{opened}.then(() => [...document.querySelectorAll('.text')].map((t) => t.textContent))")
        texts = browser.run("[...document.querySelectorAll('.text')].map((t) => t.textContent)")
        assert texts == [
            "Question 4321?",
            "An answer that is rather rather long, number 4321.",
            "A middling answer 4321.",
        ]
        browser.run("words.value=''; show.value=[...show.options].find((o) => o.text.startsWith('losses')).value; "
                    "kind.value='0'; show.form.dispatchEvent(new Event('change'))")  # fmt: skip
        assert browser.run("document.getElementById('found').textContent") == "1,500 of 5,000 pairs"
        browser.run("window.scrollTo(0, document.body.scrollHeight); " + wait)
        assert browser.run(pairs) > 50
        for width in (360, 1280):
            browser.look(tmp_path / "shot.png", width, 800)
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert not browser.seen("Runtime.exceptionThrown")


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two colours."""

    def light(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_text_can_be_read_in_light_dark_and_print():
    css = (Path(page.__file__).parent / "page.css").read_text()
    themes = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)]
    assert len(themes) == 3
    for colours in themes:
        for text, ground in (
            ("ink", "card"),
            ("ink", "paper"),
            ("soft", "card"),
            ("soft", "paper"),
            ("accent", "card"),
        ):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for pill in ("win", "tie", "loss", "none"):
            assert contrast(colours["card"], colours[pill]) >= 4.5, pill
