"""label.py from its options to its exit code: gather answers, have them scored, write the data set."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from prospect.checkpoint.commit import write_text
from prospect.errors import MachineError, UserError
from prospect.feedback import rows as feedback
from prospect.feedback.answers import Group, gather
from prospect.feedback.options import Kind, Labelling
from prospect.feedback.scoring import Verdicts, cost, score
from prospect.judge.calls import Patience
from prospect.judge.outputs import check_writable

_TOO_MANY_FAILED = 3


def label(options: Labelling, patience: Patience = Patience()) -> int:  # noqa: B008 - frozen
    """One data set; the exit code: 0, or 3 where too many answers have no score.

    Raises:
        ProspectError: a mistake in the command or the files, or the judge cannot be used.
    """
    if options.out.resolve() in {file.resolve() for file in options.files}:
        raise UserError(f"-o {options.out}: is one of the samples files")
    groups, left_out = gather(options.files, options.columns)
    groups = _chosen(groups, options, left_out)
    for what, count in left_out.items():
        print(f"note: {count} {what}: left out")
    if cut := sum(answer.is_cut for group in groups for answer in group.answers):
        print(f"note: {cut} answers were cut off at max_new_tokens: they would be trained as if they ended there")
    if options.dry_run:
        print(cost(options.asking, groups))
        return 0
    check_writable(options.out, "-o")
    verdicts = score(options.asking, groups, patience)
    for warning in verdicts.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return _conclude(options, groups, verdicts)


def _chosen(groups: Sequence[Group], options: Labelling, left_out: Counter[str]) -> list[Group]:
    """The groups that can give rows; the first by hash where only some are wanted."""
    least = 2 if options.kind is Kind.pairwise else 1
    usable = [group for group in groups if len(group.answers) >= least]
    left_out["prompts with fewer than two different answers" if least == 2 else "prompts without an answer"] += len(
        groups
    ) - len(usable)
    if not usable:
        raise UserError(
            f"{options.files[0]}: no prompt has {'two different answers' if least == 2 else 'an answer'}; sample with "
            "++samples_per_prompt, name further columns (-ck policy,chosen) or further files (-f)"
        )
    for name in [name for name, count in left_out.items() if not count]:
        del left_out[name]
    seed = options.asking.seed
    order = sorted(usable, key=lambda group: hashlib.sha256(f"{seed} {group.prompt_id}".encode()).digest())
    kept = {group.prompt_id for group in order[: options.max_prompts]}
    return [group for group in usable if group.prompt_id in kept]


def _conclude(options: Labelling, groups: Sequence[Group], verdicts: Verdicts) -> int:
    scores = [
        (group, [feedback.Scored(answer, s) for answer, s in zip(group.answers, some, strict=True) if s is not None])
        for group, some in zip(groups, verdicts.scores, strict=True)
    ]
    total, found = sum(map(len, verdicts.scores)), sum(len(some) for _, some in scores)
    origin = _provenance(options, verdicts)
    made = feedback.rows(scores, options.kind, options.choice, options.threshold, options.asking.seed) if found else ()
    lines = [json.dumps(row | origin, allow_nan=False) for row in feedback.widest_first(made)]
    try:
        write_text(options.out, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise MachineError(f"{options.out}: {error.strerror}") from None
    what = {Kind.pairwise: "pairs", Kind.binary: "labelled answers", Kind.scored: "scored answers"}[options.kind]
    print(f"{found} of {total} answers to {len(groups)} prompts scored by {verdicts.judge}")
    print(
        f"written: {options.out} ({len(lines)} {what}); datasets=[files] datasets.files.path={options.out} trains on it"
    )
    return _TOO_MANY_FAILED if not lines or total - found > options.max_failed * total else 0


def _provenance(options: Labelling, verdicts: Verdicts) -> dict[str, Any]:
    """What every row says of where it comes from."""
    return {
        "judge": verdicts.judge,
        "judge_answered_as": list(verdicts.answered_as),
        "judge_prompt": verdicts.prompt,
        "endpoint": verdicts.endpoint,
        "seed": options.asking.seed,
        **options.asking.own.record(),
        "feedback": str(options.kind) if options.kind is not Kind.pairwise else f"{options.kind} {options.choice}",
        "source_files": [str(file) for file in options.files],
    }
