"""judgments/<run>-<hash>.jsonl: every judged pair of a comparison with both texts and all its games, one a line.

A line has AlpacaEval's names (``instruction, output_1, output_2, generator_1, generator_2, dataset, annotator,
preference``; 1 = baseline, 2 = candidate, null = no verdict), so its tools read it too, and ours: the prompt's hash,
the sample's index, the status, the score and the games. Everything that tells figures are of this judge and this
prompt (``judge, endpoint, judge_prompt``) is in each line, so a line that travels alone can still be told apart.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prospect.checkpoint.commit import write_text
from prospect.errors import MachineError
from prospect.judge.games import Game, Judgment, Outcome, Status, outcome
from prospect.judge.judges import Session
from prospect.judge.options import Options
from prospect.judge.prompt import JudgePrompt
from prospect.judge.reply import Completion
from prospect.judge.samples import Match, Pair
from prospect.judge.speech import Verdict


def judgments_file(options: Options, match: Match, session: Session, prompt: JudgePrompt | None) -> Path:
    """Beside the results: the same comparison writes the same file, another one another."""
    identity: list[Any] = [session.judge, session.endpoint, prompt.sha256 if prompt else None, str(options.orders)]
    identity += [options.seed, options.max_prompts, options.repeat, options.rotate_labels]
    identity += [[str(side.file.resolve()), side.column] for side in (match.candidate, match.baseline)]
    identity += [options.own.body] if options.own.body else []
    mark = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.+-]+", "_", match.exp_name)[:100]
    return options.results.parent / "judgments" / f"{name}-{mark}.jsonl"


def write(
    file: Path,
    options: Options,
    match: Match,
    session: Session,
    prompt: JudgePrompt | None,
    outcomes: Iterable[Outcome],
) -> None:
    """Write the whole file at once.

    Raises:
        MachineError: the disk refuses.
    """
    common = {
        "generator_1": match.baseline.name,
        "generator_2": match.exp_name if match.candidate.file == match.baseline.file else match.candidate.name,
        "annotator": session.judge,
        "judge": session.judge,
        "endpoint": session.endpoint,
        "judge_prompt": prompt.sha256 if prompt else None,
        "judge_prompt_name": prompt.name if prompt else None,
        **options.own.record(),
    }
    _write(file, [_pair(one.pair) | _outcome(one) | common for one in outcomes])


def rewrite(file: Path, lines: Sequence[Mapping[str, Any]], outcomes: Sequence[Outcome]) -> None:
    """The same lines with other outcomes.

    Raises:
        MachineError: the disk refuses.
    """
    _write(file, [{**line, **_outcome(one)} for line, one in zip(lines, outcomes, strict=True)])


def of_line(line: Mapping[str, Any]) -> Outcome:
    """A line as what it was written from.

    Raises:
        KeyError, TypeError, ValueError: it is no such line.
    """
    texts = (line["instruction"], line["output_2"], line["output_1"], line["dataset"])
    pair = Pair(line["prompt_id"], line["sample"], *texts)
    return outcome(pair, [_judgment(pair, game) for game in line["games"]])


def _judgment(pair: Pair, game: Mapping[str, Any]) -> Judgment:
    return Judgment(
        Game(pair, game["candidate_first"], game["repeat"]),
        Verdict(game["verdict"]) if game["verdict"] else None,
        game["text"],
        game["reason"],
        Status(game["status"]),
        game["how"],
        game["strong"],
        game["share"],
        game["outside"],
        tuple(game["scores"]) if game["scores"] else None,
        game["key"],
        game["labels"],
        _completion(game) if "model" in game else None,
    )


def _completion(game: Mapping[str, Any]) -> Completion:
    tokens = (game["prompt_tokens"], game["completion_tokens"], game["cached_tokens"])
    return Completion(game["text"], game["fault"], game["model"], game["fingerprint"], *tokens, False, game["top"])


def _write(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, "".join(json.dumps(line) + "\n" for line in lines))
    except OSError as error:
        raise MachineError(f"{file}: {error.strerror}") from None


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "prompt_id": pair.prompt_id,
        "sample": pair.sample,
        "dataset": pair.dataset,
        "instruction": pair.conversation,
        "output_1": pair.baseline,
        "output_2": pair.candidate,
    }


def _outcome(found: Outcome) -> dict[str, Any]:
    return {
        "preference": None if found.score is None else 1 + found.score,
        "score": found.score,
        "status": str(found.status),
        "games": [_game(judgment) for judgment in found.judgments],
    }


def _game(judgment: Judgment) -> dict[str, Any]:
    return {
        "candidate_first": judgment.game.candidate_first,
        "verdict": str(judgment.verdict) if judgment.verdict else None,
        "score": judgment.score,
        "text": judgment.text,
        "reason": judgment.reason,
        "failed": judgment.failed,
        "status": str(judgment.status),
        "repeat": judgment.game.repeat,
        "how": judgment.how,
        "strong": judgment.strong,
        "share": judgment.share,
        "outside": judgment.outside,
        "scores": judgment.scores,
        "labels": judgment.labels,
        "key": judgment.key,
        **({} if judgment.reply is None else _reply(judgment.reply)),
    }


def _reply(reply: Completion) -> dict[str, Any]:
    """Who answered and what it took; times and attempts stand in the ledger under the game's key."""
    return {
        "model": reply.model,
        "fingerprint": reply.fingerprint,
        "prompt_tokens": reply.prompt_tokens,
        "cached_tokens": reply.cached_tokens,
        "completion_tokens": reply.completion_tokens,
        "fault": reply.fault,
        "top": None if reply.top is None else {token: p for token, p in reply.top.items() if math.isfinite(p)},
    }
