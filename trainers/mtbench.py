"""``mode=mtbench``: answers to MT-Bench in FastChat's format. A later turn follows the model's own answers.

<samples_dir>/mt_bench/model_answer/<exp_name>.jsonl is where FastChat looks for a model's answers in its data folder.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from dataloaders import SOURCES
from dataloaders.sources.mtbench import TEMPERATURES, Question, questions
from dataloaders.sources.parts import open_parts
from prospect.checkpoint.commit import write_text
from prospect.config.schema import Config, DatasetConfig, Split
from prospect.conversation import Conversation, Message, answered
from prospect.logs import log, log_to
from prospect.parallel import World
from prospect.progress import progress
from prospect.sampling.generate import Answer, Settings, Task, sample
from prospect.sampling.room import Room, fit_all, longest_answer
from prospect.sampling.samples import Partial, Sample, move_aside
from trainers.saved_policy import policy_origin, samples_key, sampling_model, text_of
from trainers.setup import Text

Done = dict[tuple[str, int], Sample]  # by (question and choice, turn)


@dataclass(frozen=True, slots=True)
class Chat:
    """One conversation to be had about a question: ``samples_per_prompt`` of them are its choices."""

    question: Question
    choice: int

    @property
    def id(self) -> str:
        """Key of its answers."""
        return f"{self.question.id}/{self.choice}"

    def upto(self, last: int, done: Done) -> Conversation:
        """The conversation so far, ending with the user's turn number ``last``."""
        found: list[Message] = []
        for number in range(last):
            found += [Message("user", self.question.turns[number]), answered(done[self.id, number].policy)]
        return Conversation((*found, Message("user", self.question.turns[last])))


def answer_mtbench(config: Config, world: World) -> int:
    """Answer all questions, continuing what an earlier call has begun; the exit code."""
    log_to(None, world.rank)
    asked, content = _questions(config)
    origin = policy_origin(config)
    text = text_of(config, origin)
    key = samples_key(config, origin, text, "mtbench", content, config.category_temperatures)
    file = Path(config.samples_dir) / "mt_bench" / "model_answer" / f"{config.exp_name}.jsonl"
    chats = [Chat(question, k) for question in asked for k in range(config.samples_per_prompt)]
    if world.is_main and file.exists() and _first_id(file) != _answer_id(key, asked[0]):
        log.info("earlier answers are kept as %s", move_aside(file))
    partial = Partial(file, key, world.rank)
    wanted = {(chat.id, number) for chat in chats for number in range(len(chat.question.turns))}
    if not wanted <= partial.done().keys():
        model = sampling_model(config, origin, text, world)
        _converse(config, chats[world.rank :: world.size], model, text, partial, world)
    world.barrier()
    if world.is_main:
        done = partial.done()
        lines = (_line(question, config, key, done) for question in asked)
        write_text(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        partial.clear()
        print(f"written: {file} ({len(asked)} questions)")
    return 0


def _questions(config: Config) -> tuple[list[Question], str]:
    """The questions, and a key of the file."""
    given = config.datasets.get("mtbench", DatasetConfig(source="mtbench"))
    (part,) = open_parts("mtbench", SOURCES[given.source], given, Split.test, config.seed)
    return questions(part.rows), part.rows.key


def _converse(
    config: Config, chats: Sequence[Chat], model: PreTrainedModel, text: Text, partial: Partial, world: World
) -> None:
    """All turns of these conversations, turn by turn; what ``partial`` has is not asked again."""
    rounds = max((len(chat.question.turns) for chat in chats), default=0)
    total = sum(len(chat.question.turns) for chat in chats)
    with progress(f"MT-Bench {config.exp_name}", total, "answers", show=world.is_main) as bar:
        for number in range(rounds):
            done = partial.done()
            here = [chat for chat in chats if number < len(chat.question.turns)]
            for temperature, group in _by_temperature(config, [c for c in here if (c.id, number) not in done]):
                settings = _settings(config, temperature)
                by_id = {chat.id: chat.upto(number, done) for chat in group}
                asked = fit_all(text.chat, by_id, Room.of(model, settings.max_new_tokens))
                tasks = [Task(i, number, asked[i].ids, asked[i].cut) for i in by_id]
                for batch in sample(model, text.chat, tasks, settings):
                    partial.add(_sample(task, answer, by_id[task.prompt_id], text) for task, answer in batch)
                    bar.advance(len(batch))


def _by_temperature(config: Config, chats: Sequence[Chat]) -> Iterator[tuple[float, list[Chat]]]:
    known = {**TEMPERATURES, **config.category_temperatures}
    groups: dict[float, list[Chat]] = {}
    for chat in chats:
        own = chat.question.temperature
        wanted = known.get(chat.question.category, config.temperature) if own is None else own
        groups.setdefault(wanted, []).append(chat)
    yield from groups.items()


def _settings(config: Config, temperature: float) -> Settings:
    return Settings(config.seed, temperature, config.top_p, longest_answer(config), config.model.eval_batch_size)


def _sample(task: Task, answer: Answer, talk: Conversation, text: Text) -> Sample:
    given = text.tokenizer.decode(list(task.prompt_ids), clean_up_tokenization_spaces=False)
    assert isinstance(given, str)
    where = (task.prompt_id, task.sample, "mtbench")
    return Sample(given, "", answer.text, *where, talk.rows(), answer.n_tokens, answer.finish, prompt_cut=task.cut)


def _line(question: Question, config: Config, key: str, done: Done) -> dict[str, object]:
    """One question as FastChat writes it."""
    choices = [
        {
            "index": k,
            "turns": [done[Chat(question, k).id, number].policy for number in range(len(question.turns))],
        }
        for k in range(config.samples_per_prompt)
    ]
    return {
        "question_id": question.id,
        "answer_id": _answer_id(key, question),
        "model_id": config.exp_name,
        "choices": choices,
        "tstamp": time.time(),
    }


def _answer_id(key: str, question: Question) -> str:
    """As long as FastChat's, and the same for the same weights, question and settings."""
    return hashlib.sha256(f"{key}/{question.id}".encode()).hexdigest()[:22]


def _first_id(file: Path) -> str | None:
    try:
        return str(json.loads(file.read_text(encoding="utf-8").split("\n", 1)[0])["answer_id"])
    except (ValueError, KeyError, TypeError):
        return None
