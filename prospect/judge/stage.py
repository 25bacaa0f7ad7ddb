"""A comparison from its options to its exit code: read, choose prompts, judge, sum up, write down."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prospect.errors import UserError
from prospect.judge import judgments, outputs, result
from prospect.judge.calls import Patience
from prospect.judge.caveats import caveats
from prospect.judge.early import anytime, judge_until_sure
from prospect.judge.games import outcomes, schedule
from prospect.judge.judges import Session, estimate, judge, prompt_of
from prospect.judge.jury import jury
from prospect.judge.lengths import Instruments, instruments_for, of_outcomes
from prospect.judge.options import Options, Orders
from prospect.judge.prompt import JudgePrompt
from prospect.judge.readers import load_judgments
from prospect.judge.reply import plain
from prospect.judge.samples import Match, load_match, select
from prospect.judge.summary import summarise

_TOO_MANY_FAILED = 3


def compare(options: Options, patience: Patience = Patience()) -> int:  # noqa: B008 - frozen
    """One comparison, by every judge that was named; the exit code: 0, or 3 where too many pairs have a game without a
    reply or none has all its games.

    Raises:
        ProspectError: a mistake in the command or the files, or the judge cannot be used.
    """
    names = (options.judge, *options.jury)
    if len(set(names)) < len(names):
        raise UserError(f"-j: the same judge twice ({', '.join(map(str, names))}): --repeat asks one judge again")
    each = [replace(options, judge=name) for name in names]
    prompts = [prompt_of(one) for one in each]
    instruments = instruments_for(options.lc, options.lc_data)
    match = load_match(options)
    match = replace(match, pairs=select(match.pairs, options.max_prompts, options.seed))
    for note in match.notes:
        print(f"note: {note}")
    if options.slept:
        print("note: -st is no longer needed: calls keep to the pace that the server asks for")
    if not options.dry_run:
        outputs.check(options)
    codes, files = [], []
    for one, prompt in zip(each, prompts, strict=True):
        in_pairs = prompt is not None and not prompt.pointwise
        orders, repeat = (options.orders, options.repeat) if in_pairs else (Orders.fixed, 1)
        games = schedule(match.pairs, orders, repeat)
        if options.dry_run:
            print(estimate(one, games))
            continue
        if options.stop_early:
            part, session = judge_until_sure(one, match, orders, repeat, patience)
        else:
            part, session = match, judge(one, games, patience)
        code, file = _conclude(one, part, prompt, session, instruments)
        codes.append(code)
        files.append(file)
    if len(files) > 1:
        print(_jury(files, options.seed))
    if options.report and files:
        from prospect.report.comparison import load
        from prospect.report.page import write_page

        write_page(options.report, load(files[0], results=options.results))  # it finds the other judges' files
        print(f"page: {options.report}")
    return max(codes, default=0)


def _jury(files: Sequence[Path], seed: int) -> str:
    """Several judges' common verdict in two lines; each one's own result stands, whatever they have in common."""
    try:
        found = jury([load_judgments(file) for file in files], seed)
    except UserError as error:
        return f"no jury: {error}"
    low, high = found["ci95"]
    between = "; ".join(
        f"{' and '.join(map(plain, pair['judges']))} agree on {pair['agreement']:.0%}"
        + ("" if pair["kappa"] is None else f" (kappa {pair['kappa']:.2f})")
        for pair in found["pairs"]
    )
    return (
        f"jury of {len(found['judges'])}: win rate {found['win_rate']:.1f}% (95% interval {low:.1f} to {high:.1f}) on "
        f"{found['prompts']} prompts that all have judged\n{between}; {len(found['disputed'])} pairs disputed"
    )


def _conclude(
    options: Options,
    match: Match,
    prompt: JudgePrompt | None,
    session: Session,
    instruments: Instruments | None,
) -> tuple[int, Path]:
    """The exit code, and the file of judgments."""
    judged = outcomes(match.pairs, session.judgments)
    controlled = of_outcomes(judged, options.lc, instruments, options.seed)
    summary = replace(summarise(judged, options.seed), length_control=controlled)
    if options.stop_early:
        summary = replace(summary, win_rate=anytime(summary.win_rate, judged))
    if options.verbose:
        print("".join(f"{line}\n" for line in result.verdict_lines(judged)), end="")
    file = judgments.judgments_file(options, match, session, prompt)
    judgments.write(file, options, match, session, prompt, judged)
    result.append(options.results, result.line(options, match, session, prompt, summary, file))
    if options.csv:
        result.write_csv(options.csv, session)
    for warning in caveats(options, match, session, prompt, summary):
        print(f"warning: {warning}", file=sys.stderr)
    print(result.three_lines(options, match, session, summary))
    none_judged = summary.win_rate is None
    too_many = summary.unanswered > options.max_failed * summary.total
    return (_TOO_MANY_FAILED if none_judged or too_many else 0), file
