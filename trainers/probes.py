"""Probes: questions that a run is asked at its start, at each evaluation and at its end, always greedily.

<run>/probes.jsonl has a line for each question and time: the answer, and by how much the log-probability of the answer
given at the start has changed. Asking draws no random number and touches no weight: the run is the same without.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dataloaders.packing import Sequence, pack
from prospect.batch import Role
from prospect.config.schema import Config
from prospect.conversation import answered, asked
from prospect.errors import UnwrittenError, UserError
from prospect.logs import log_to
from prospect.model.load import origin_of
from prospect.model.policy import Policy
from prospect.parallel import World
from prospect.report.before_after import side_by_side
from prospect.sampling.generate import Answer, Settings, Task, sample
from prospect.sampling.room import Asked, Room, fit_all, longest_answer
from prospect.tracking import forget_after
from trainers.saved_policy import policy_origin, source_of, text_of, unaligned
from trainers.setup import Text, prepare_policy

_LONGEST = 256  # tokens of an answer, unless max_new_tokens says otherwise


@dataclass(frozen=True, slots=True)
class Line:
    """One answer. ``start_logp``: log-probability, now, of the answer that was given first."""

    step: int
    examples: int
    question: str
    answer: str
    n_tokens: int
    finish: str
    start_logp: float
    start_logp_change: float

    def given(self) -> Answer:
        """The answer as it was sampled."""
        return Answer(self.answer, self.n_tokens, self.finish)


class Probes:
    """The probes of one run. A run that continues at ``step`` forgets the answers of later steps: they come again."""

    def __init__(self, config: Config, policy: Policy, text: Text, file: Path, step: int) -> None:
        self.config, self.policy, self.text, self.file = config, policy, text, file
        forget_after(file, step)
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        self.lines = [Line(**json.loads(line)) for line in lines]

    def ask(self, step: int, examples: int) -> None:
        """Ask every question and write down the answers, in one piece."""
        if not self.config.probes:
            return
        answers = greedy_answers(self.config, self.policy, self.text)
        first = self._first()
        old = answers | {q: first[q].given() for q in answers if q in first}
        logps = answer_logps(self.config, self.policy, self.text, old)
        new = []
        for question, answer in answers.items():
            now = logps[question]
            change = now - first[question].start_logp if question in first else 0.0
            new.append(Line(step, examples, question, answer.text, answer.n_tokens, answer.finish, now, change))
        with self.file.open("a", encoding="utf-8") as handle:
            handle.write("".join(json.dumps(asdict(line), ensure_ascii=False) + "\n" for line in new))
        self.lines += new

    def summary(self) -> list[dict[str, Any]]:
        """Each question with its first and its last answer."""
        first, last = self._first(), {line.question: line for line in self.lines}
        return [_compared(q, first[q].answer, last[q].answer, last[q].start_logp_change) for q in first]

    def _first(self) -> dict[str, Line]:
        found: dict[str, Line] = {}
        for line in self.lines:
            found.setdefault(line.question, line)
        return found


def ask_before_and_after(config: Config, world: World) -> int:
    """``mode=probe``: the questions to the model that the run started from and to ``saved_policy``; the exit code.

    Without a saved policy the model before any training is asked alone.
    """
    log_to(None, world.rank)
    if not config.probes:
        raise UserError("""probes: no question is given: 'probes=["What is your name?"]'""")
    if not world.is_main:
        return 0
    origin, text = policy_origin(config), text_of(config, None)
    if origin is None:
        config = unaligned(config)
    policy = prepare_policy(config, origin_of(config), text, world)
    before = greedy_answers(config, policy, text)
    if origin is None:
        print("\n\n".join(f"question  {question}\nanswer    {answer.text}" for question, answer in before.items()))
        return 0
    old = answer_logps(config, policy, text, before)
    del policy  # one model in memory at a time
    text = text_of(config, origin)
    policy = prepare_policy(source_of(config, origin), origin, text, world)
    after, now = greedy_answers(config, policy, text), answer_logps(config, policy, text, before)
    print(shown([_compared(q, before[q].text, after[q].text, now[q] - old[q]) for q in before]))
    return 0


def shown(rows: list[dict[str, Any]]) -> str:
    """A summary of probes, for people."""
    notes = [f"log-probability of the answer before: {row['logp_change']:+.2f}" for row in rows]
    return side_by_side([(row["question"], row["before"], row["after"]) for row in rows], notes)


def greedy_answers(config: Config, policy: Policy, text: Text) -> dict[str, Answer]:
    """The likeliest answer to each question, token by token."""
    settings = Settings(config.seed, 0.0, 1.0, _longest(config), config.model.eval_batch_size)
    prompts = _prompts(config, policy, text, config.probes)
    tasks = [Task(question, 0, asked.ids) for question, asked in prompts.items()]
    with policy.own_forward(), policy.precision():
        batches = list(sample(policy.model, text.chat, tasks, settings))
    found = {task.prompt_id: answer for batch in batches for task, answer in batch}
    return {task.prompt_id: found[task.prompt_id] for task in tasks}


@torch.no_grad()
def answer_logps(config: Config, policy: Policy, text: Text, answers: Mapping[str, Answer]) -> dict[str, float]:
    """log π(answer | question) of each answer, as training would count it: with its end, where it came to one."""
    found = {}
    prompts = _prompts(config, policy, text, answers)
    for question, answer in answers.items():
        ids = _answer_ids(text, question, answer)
        if not ids:
            found[question] = 0.0
            continue
        prompt = list(prompts[question].ids)
        batch = pack([Sequence(question, prompt, ids, [True] * len(ids), Role.chosen)])
        found[question] = float(policy.logps(batch.to(policy.device)).sums[0])
    return found


def _answer_ids(text: Text, question: str, answer: Answer) -> list[int]:
    try:
        _, ids, _ = text.chat.encode_pair(text.chat.render(asked(question), answered(answer.text)))
    except UnwrittenError:  # it was cut off in the middle of its reasoning
        return text.chat.encode(text.chat.shield.put(answer.text))
    return ids[: len(ids) - len(text.chat.encode(text.chat.turn_end))] if answer.finish == "length" else ids


def _longest(config: Config) -> int:
    return config.max_new_tokens or min(longest_answer(config), _LONGEST)


def _prompts(config: Config, policy: Policy, text: Text, questions: Iterable[str]) -> dict[str, Asked]:
    return fit_all(
        text.chat, {question: asked(question) for question in questions}, Room.of(policy.model, _longest(config))
    )


def _compared(question: str, before: str, after: str, change: float) -> dict[str, Any]:
    return {"question": question, "before": before, "after": after, "logp_change": round(change, 4)}
