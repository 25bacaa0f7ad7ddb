"""compare.py as users call it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compare import main
from prospect import demo
from prospect.config.schema import Split
from prospect.judge import games
from prospect.judge.options import Orders, parse
from tests.planted import plant

ROOT = Path(__file__).parents[1]


def compare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI")}
    return subprocess.run(
        [sys.executable, str(ROOT / "compare.py"), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of a good and of a poor model of the demo's world."""
    where = tmp_path_factory.mktemp("compare")
    rows = list(demo.rows(Split.test, seed=1))[:60]
    for name, good in (("kto", 0.6), ("sft", 0.1)):
        samples = [
            {
                "prompt": f"\n<|user|>\n{row['prompt']}\n<|assistant|>\n",
                "chosen": row["chosen"],
                "policy": row["chosen"] if (i * 7919 % 100) / 100 < good else row["rejected"],
                "sample": 0,
            }
            for i, row in enumerate(rows)
        ]
        content = {"sampled_at": "now", "config": {"exp_name": f"demo_{name}"}, "samples": samples}
        (where / f"{name}.json").write_text(json.dumps(content))
    return where


def test_help_is_quick_and_light():
    start = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "compare.py"), "--help"], capture_output=True, text=True
    )
    assert time.monotonic() - start < 2  # measured 0.05 s; the rest is for busy machines
    assert found.returncode == 0
    for flag in ("-f", "-f2", "-ck", "-bk", "-hk", "-l", "-s", "-st", "-mc", "-v", "-r", "-j", "-csv", "--base-url"):
        assert f" {flag} " in found.stdout or f" {flag}," in found.stdout or f"[{flag}" in found.stdout
    for heavy in ("torch", "openai", "numpy", "scipy", "transformers"):
        assert f" {heavy}\n" not in found.stderr


def test_stage_needs_no_torch():
    code = "import sys, prospect.judge.stage; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_rule_on_two_files(folder):
    found = compare(folder, "-f", "kto.json", "-f2", "sft.json", "-j", "rule", "-r", "rule.jsonl")
    assert (found.returncode, found.stderr) == (0, "")
    lines = found.stdout.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("demo_kto against demo_sft, judge rule: win rate ")
    result = json.loads((folder / "rule.jsonl").read_text())
    assert result["win_rate"] > result["ci95"][0] > 0.5
    assert result["candidate"]["name"] == "demo_kto"
    assert len(result["candidate"]["lengths"]) == result["total"] == 60
    assert result["spent"] is None


def test_contracts_command_with_an_offline_judge(folder):
    arguments = ("-f", "kto.json", "-mc", "20", "-bk", "chosen", "-ck", "policy", "-r", "result.jsonl", "-st", "1")
    found = compare(folder, *arguments, "-j", "longest", "-v", "-csv")
    assert found.returncode == 0
    assert "-st is no longer needed" in found.stdout
    assert "candidate first: " in found.stdout
    compare(folder, *arguments, "-j", "longest", "-s", "1")
    first, second = map(json.loads, (folder / "result.jsonl").read_text().splitlines())
    assert first["total"] == second["total"] == 20
    with (folder / "result.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    wins = sum(row["winner"] == "candidate" for row in rows)
    assert wins == first["candidate"]["wins"]
    assert {row["winner"] for row in rows} <= {"candidate", "baseline", "tie"}
    assert any("\n" in row["conversation"] or row["conversation"] for row in rows)


def check_other_side(folder: Path) -> None:
    """-bk and -ck change places: the win rate and the rate at equal length are those of the other side."""
    for name, candidate, baseline in (("ours", "policy", "chosen"), ("theirs", "chosen", "policy")):
        assert main(["-f", str(folder / "sft.json"), "-j", "longest", "-ck", candidate, "-bk", baseline,
                     "-r", str(folder / f"{name}.jsonl")]) == 0  # fmt: skip
    ours, theirs = (json.loads((folder / f"{name}.jsonl").read_text().splitlines()[-1]) for name in ("ours", "theirs"))
    assert ours["ties"] > 0
    assert ours["win_rate"] != 0.5
    assert theirs["win_rate"] == pytest.approx(1 - ours["win_rate"])
    assert theirs["lc"]["rate"] == pytest.approx(1 - ours["lc"]["rate"], abs=1e-9)
    assert (theirs["candidate"]["wins"], theirs["ties"]) == (ours["baseline"]["wins"], ours["ties"])


def test_the_other_side_sees_one_minus_it(folder):
    check_other_side(folder)


def test_planted_bug_identical_answers_win_is_noticed(folder, monkeypatch):
    plant(monkeypatch, games.outcome, "Status.ok, 0.5, ()", "Status.ok, 1.0, ()")
    with pytest.raises(AssertionError):
        check_other_side(folder)


def test_judgments_are_read_again(folder, capsys):
    """The file beside the result gives the result's figures."""
    assert main(["-f", str(folder / "kto.json"), "-j", "rule", "-r", str(folder / "again.jsonl"), "--lc", "off"]) == 0
    result = json.loads((folder / "again.jsonl").read_text())
    assert result["lc"] is None
    capsys.readouterr()
    assert main(["aggregate", result["judgments"], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["judge"], found["candidate"]) == ("ours", "rule", "demo_kto")
    assert found["by_prompt"]["win_rate"] == pytest.approx(100 * result["win_rate"])
    assert found["by_prompt"]["ci95"] == pytest.approx([100 * end for end in result["ci95"]])
    assert found["n_wins"] == result["candidate"]["wins"]
    assert main(["rank", str(folder / "again.jsonl"), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)["table"]
    assert {line["name"] for line in table} == {"demo_kto", "chosen"}


def test_torn_last_line_stays_apart(folder):
    results = folder / "torn.jsonl"
    results.write_text('{"date": "2026-01-01"}\n{"date": "20')
    assert compare(folder, "-f", "kto.json", "-j", "longest", "-r", "torn.jsonl").returncode == 0
    lines = results.read_text().splitlines()
    assert lines[1] == '{"date": "20'
    assert json.loads(lines[2])["judge"] == "longest"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-j", "rule"), "the following arguments are required: -f"),
        (("-f", "absent.json", "-j", "rule"), "absent.json: No such file"),
        (("-f", "kto.json", "-j", "rule", "-ck", "polcy"), "did you mean `policy`"),
        (("-f", "kto.json", "-j", "rule", "--base_url", "x"), "did you mean `--base-url`"),
        (("-f", "kto.json", "-v", "perhaps"), "neither true nor false"),
        (("-f", "kto.json", "-mc", "0"), "whole number above 0"),
        (("-f", "kto.json", "-l", "11"), "two different letters"),
        (("-f", "kto.json"), "OPENAI_API_KEY is not set"),
        (("-f", "kto.json", "-j", "rule", "--lc", "alpaca"), "--lc alpaca needs --lc-data"),
        (("agregate", "result.jsonl"), "did you mean `aggregate`"),
        (("-f", "kto.json", "-j", "longest", "-r", "/proc/none/result.jsonl"), "-r /proc/none/result.jsonl"),
    ],
)
def test_mistakes_are_one_line(folder, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("OPENAI")]:
        monkeypatch.delenv(name)
    try:
        code: object = main(list(arguments))
    except SystemExit as stop:
        code = stop.code
    found = capsys.readouterr()
    assert code == 2
    assert message in found.err
    assert len(found.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "value"), [((), False), (("-v",), True), (("-v", "False"), False), (("-v", "true"), True)]
)
def test_verbose_is_a_boolean(given, value):
    assert parse(["-f", "x", *given]).verbose is value


def test_flags_become_options():
    options = parse(["-f", "x", "-r", "out/r.jsonl", "-csv", "--orders", "random", "-l", "AB", "-mc", "5"])
    assert (options.csv, options.orders, options.labels) == (Path("out/r.csv"), Orders.random, "AB")
    assert options.max_prompts == 5
    assert parse(["-f", "x", "-csv", "games.csv"]).csv == Path("games.csv")
