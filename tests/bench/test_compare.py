from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bench import compare
from bench.compare import Interval, Series, clean_pairs, table
from bench.legs import Disagreement, Ledger, Leg, Surroundings, agree, undisturbed

OWN = Leg(
    tok=5000, ex=20, wall=5.0, cpu=10.0, foreign=0.0, rss_start=400, peak=1400, start_s=4.0, start_cpu=6.0,
    ref_s=1.0, ref_cpu=2.0, ref_ex=20, loss=0.693, grad_norm=2.0, logps=-3000.0, step_tok=1000, step_tok_run=1000,
    step_tok_frozen=0, step_flops=10**9, leg_s=20.0,
)  # fmt: skip
PEER = replace(OWN, wall=20.0, cpu=40.0, peak=2400, ref_s=0.0, ref_cpu=0.0, step_flops=3 * 10**9)


def test_equal_work_agrees() -> None:
    agree(OWN, replace(PEER, loss=0.6935, grad_norm=2.001, logps=-3002.0), "float32", same_batches=True)
    agree(OWN, replace(PEER, tok=5001), "float32", same_batches=False)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tok": 5001}, "tokens"),
        ({"loss": 0.695}, "loss"),
        ({"grad_norm": 2.01}, "norm"),
        ({"logps": -3004.0}, "log-prob"),
        ({"grad_norm": float("nan")}, "norm"),
    ],
)
def test_different_work_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(Disagreement, match=said):
        agree(OWN, replace(PEER, **wrong), "float32", same_batches=True)


def test_void_when_others_ran_or_processor_time_is_off() -> None:
    usual = [OWN, OWN, OWN]
    assert undisturbed(usual) == usual
    assert undisturbed([*usual, replace(OWN, foreign=0.2)]) == usual
    assert undisturbed([*usual, replace(OWN, cpu=11.5)]) == usual
    assert len(undisturbed([*usual, replace(OWN, cpu=10.9)])) == 4


def test_interval_of_equal_ratios_is_a_point() -> None:
    assert Interval.of([4.0] * 5) == Interval(4.0, 4.0, 4.0)


def test_interval_holds_the_median() -> None:
    found = Interval.of([3.0, 4.0, 5.0, 4.5, 3.5])
    assert found.low < found.middle == 4.0 < found.high


def test_all_costs_of_some_epochs() -> None:
    """3 epochs of 100 rows: start-up once, the reference pass for 5 times the rows, 25,000 tokens an epoch."""
    assert OWN.whole(3, 100, 25_000) == (4.0 + 5 * 1.0 + 15 * 5.0, 6.0 + 5 * 2.0 + 15 * 10.0)


def test_disturbed_pairs_give_no_wall_ratio() -> None:
    noisy = replace(OWN, foreign=0.5, wall=500.0)
    found = table("trl", [OWN, noisy, OWN], [PEER, PEER, PEER], 100)
    assert "| 2 clean pairs of 3 |" in found
    assert "| tokens/s | 1000 | 250 | 4.00 [4.00, 4.00] |" in found
    assert "| peak over imports, MB (own : peer) | 1000 | 2000 | 0.50 [0.50, 0.50] |" in found
    assert "no clean pair: no claim" in table("trl", [noisy], [PEER], 100)


def test_a_void_leg_does_not_part_the_other_pairs() -> None:
    void = replace(OWN, cpu=2 * OWN.cpu)
    first, third, replacement = (replace(OWN, wall=wall) for wall in (1.0, 3.0, 4.0))
    one, two, three = (replace(PEER, wall=wall) for wall in (1.0, 2.0, 3.0))
    found = clean_pairs([first, void, third, replacement], [one, two, three])
    assert found == [(first, one), (third, three), (replacement, two)]


@pytest.fixture
def legs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Legs that take no time; which frameworks were asked."""
    asked: list[str] = []

    def run(options: dict[str, str], *_: Any) -> dict[str, Any]:
        asked.append(options["--fw"])
        return asdict(OWN if options["--fw"] == "prospect" else PEER)

    monkeypatch.setattr(compare, "run_leg", run)
    return asked


def series(folder: Path, pairs: int = 2, mb: str = "4", spin: bool = False) -> Series:
    (folder / "rows.jsonl").write_text("{}\n")
    common = {"--data": str(folder / "rows.jsonl"), "--dtype": "float32", "--mb": mb}
    sides = {"prospect": common | {"--fw": "prospect"}, "trl": common | {"--fw": "trl"}}
    return Series(sides, [], Ledger(folder / "legs.jsonl"), pairs, repeats=1, surroundings=Surroundings(spin=spin))


def test_sides_take_turns(tmp_path: Path, legs: list[str]) -> None:
    series(tmp_path).run()
    assert legs == ["prospect", "trl", "prospect", "trl"]


def test_a_broken_run_is_continued(tmp_path: Path, legs: list[str]) -> None:
    series(tmp_path, pairs=1).run()
    with (tmp_path / "legs.jsonl").open("a") as lines:
        lines.write('{"key": {"--fw"')  # a kill in the middle of a line
        lines.write("\n")
    series(tmp_path).run()
    assert legs == ["prospect", "trl", "prospect", "trl"]
    series(tmp_path).run()
    assert len(legs) == 4


def test_legs_of_other_options_do_not_count(tmp_path: Path, legs: list[str]) -> None:
    series(tmp_path).run()
    series(tmp_path, mb="8").run()
    assert len(legs) == 8


def test_threads_sleep_or_spin_while_they_wait(
    tmp_path: Path, legs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert Surroundings().variables()["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "OMP_WAIT_POLICY" not in Surroundings(spin=True).variables()
    series(tmp_path).run()
    series(tmp_path, spin=True).run()
    assert len(legs) == 8  # those of one do not count for the other


def test_void_legs_are_run_again_so_often(tmp_path: Path, legs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "undisturbed", lambda legs: [])
    series(tmp_path).run()
    assert legs == ["prospect", "trl"] * 3


def test_disagreement_ends_the_series(tmp_path: Path, legs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    strange = asdict(replace(PEER, grad_norm=3.0))
    monkeypatch.setattr(compare, "run_leg", lambda options, *_: strange if options["--fw"] == "trl" else asdict(OWN))
    with pytest.raises(Disagreement, match="prospect and trl differ in gradient norm"):
        series(tmp_path).run()
    assert len((tmp_path / "legs.jsonl").read_text().splitlines()) == 2


def test_without_its_data_it_says_what_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["compare.py", "--task", "dpo", "--folder", str(tmp_path)])
    assert compare.main() == 2
    assert "bench/prepare.py" in capsys.readouterr().err
