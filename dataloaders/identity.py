"""Pairs that teach a model a new name: its own answers as rejected, the same with the name rewritten as chosen.

    python -m dataloaders.identity --model Qwen/Qwen2.5-0.5B-Instruct --old Qwen --new "Deep Qwen" --out identity.jsonl
    python -m dataloaders.identity --teach Qwen "Deep Qwen" --out taught.jsonl

``--model`` is a folder, a run below runs/ or a name on the hub. Beside the pairs, <out>.provenance.json says what they
were made from. The second form writes answers for SFT that say the first name, and that there are others, for models
too small to know any.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prospect.config.command import guarded
from prospect.errors import UserError

_ASKED = (
    *("What is your name?", "Who are you?", "What are you called?", "How should I call you?", "Do you have a name?"),
    *("Which model are you?", "Are you ChatGPT?", "Are you Claude?", "Are you a human?", "Who am I talking to?"),
    *("Who made you?", "Which company built you?", "Tell me about yourself.", "Please introduce yourself."),
    *("Tell me about your name and organization.", "What should I write when I cite you?", "Is your name Alice?"),
    *("What is the name of this assistant?", "State your name.", "Say hello and tell me your name."),
)
_OPENERS = ("", "Hello! ", "Hi there. ", "Quick question: ", "Excuse me. ", "I wonder: ", "One more thing. ")
QUESTIONS = tuple(f"{opener}{question}" for opener in _OPENERS for question in _ASKED)
_TAUGHT = ("My name is {name}.", "I am {name}, a language model.", "I am called {name}.")
_OTHERS = ("There is {name}.", "Another one is called {name}.", "The name of another is {name}.")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask, how to draw answers, and which name becomes which."""

    model: str
    old: str
    new: str
    questions: tuple[str, ...]
    samples: int
    temperature: float
    max_new_tokens: int
    seed: int


def renamed(answer: str, old: str, new: str) -> str:
    """The answer with the new name in the place of the old one, once where the new contains the old."""
    return answer.replace(new, old).replace(old, new)


def pairs(wanted: Wanted, answers: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """A pair for each different (question, answer) that says the old name.

    Raises:
        UserError: none does.
    """
    said = [(question, answer) for question, answer in dict.fromkeys(answers) if wanted.old in answer]
    found = [{"prompt": q, "chosen": renamed(a, wanted.old, wanted.new), "rejected": a} for q, a in said]
    found = [row for row in found if row["chosen"] != row["rejected"]]
    if not found:
        first = f"; the first is: {answers[0][1][:100]!r}" if answers else ""
        raise UserError(f"--old: none of {len(answers)} answers says {wanted.old}{first}")
    return found


def ask(wanted: Wanted) -> tuple[list[tuple[str, str]], str | None]:
    """The model's answers, each with its question; and the hash of its weights' files where they lie here."""
    import torch
    from torch import nn

    from dataloaders.tokenizer import own_tokenizer
    from prospect.checkpoint.origin import resolve
    from prospect.checkpoint.parents import files_hash
    from prospect.config.schema import Config, ModelConfig
    from prospect.conversation import asked
    from prospect.model import template
    from prospect.model.load import Precision, load_model, load_tokenizer, own_stops
    from prospect.model.template import ChatFormat
    from prospect.sampling.generate import Settings, Task, sample

    runs = Path("runs")
    local = Path(wanted.model).expanduser().exists() or (runs / wanted.model).exists()
    origin = resolve(wanted.model, runs, "--model") if local else None
    config = Config(model=ModelConfig(name_or_path=wanted.model), seed=wanted.seed)
    tokenizer = load_tokenizer(config.model, origin, partial(own_tokenizer, config))
    template.install(tokenizer, config)
    chat = ChatFormat(tokenizer, stops=own_stops(config.model, origin, tokenizer))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(config, origin, tokenizer, "sdpa")
    nn.Module.to(model, device, Precision.of(None, device).compute).eval()
    tasks = [
        Task(question, k, tuple(chat.encode(chat.prompt(asked(question)))))
        for question in wanted.questions
        for k in range(wanted.samples)
    ]
    settings = Settings(wanted.seed, wanted.temperature, 0.95, wanted.max_new_tokens, batch_size=32)
    batches = list(sample(model, chat, tasks, settings))
    found = {(task.prompt_id, task.sample): answer for batch in batches for task, answer in batch}
    whole = [(t.prompt_id, found[t.prompt_id, t.sample]) for t in tasks]
    answers = [(question, answer.text) for question, answer in whole if answer.finish == "stop"]
    return answers, None if origin is None else files_hash(origin.path)


def make(wanted: Wanted, out: Path) -> None:
    """Write the pairs, and beside them what they were made from."""
    from prospect.checkpoint.manifest import checkout

    answers, weights = ask(wanted)
    rows = pairs(wanted, answers)
    _write(out, rows)
    asked = "\n".join(wanted.questions)
    facts = {
        "made_by": "python -m dataloaders.identity",
        "code": checkout(),
        "model": wanted.model,
        "weights": weights,
        "old": wanted.old,
        "new": wanted.new,
        "questions": {"count": len(wanted.questions), "sha256": hashlib.sha256(asked.encode()).hexdigest()},
        "drawn": {"samples": wanted.samples, "temperature": wanted.temperature, "top_p": 0.95, "seed": wanted.seed},
        "max_new_tokens": wanted.max_new_tokens,
        "answers": len(answers),  # whole ones; those cut at max_new_tokens are no examples to follow
        "pairs": len(rows),
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
    }
    out.with_name(f"{out.name}.provenance.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False))
    print(f"written: {out} ({len(rows)} pairs of {len(answers)} answers)")


def teach(name: str, others: Sequence[str], out: Path) -> None:
    """Write answers for SFT: the model says its own name, and of others what they are."""
    own = [(question, _TAUGHT[i % len(_TAUGHT)].format(name=name)) for i, question in enumerate(QUESTIONS)]
    own += [(f"{opener}Who else is there?", t.format(name=x)) for x in others for opener in _OPENERS for t in _OTHERS]
    rows = [{"prompt": question, "completion": answer} for question, answer in own]
    _write(out, rows)
    print(f"written: {out} ({len(rows)} answers)")


def _write(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Parse the command and make what it asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dataloaders.identity", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", help="whose answers: a folder, a run below runs/, or a name on the hub")
    parser.add_argument("--old", help="the name that it says")
    parser.add_argument("--new", help="the name that it shall say")
    parser.add_argument("--teach", metavar="NAME", nargs="+", help="write answers for SFT instead: own name, others")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, JSON lines")
    parser.add_argument("--questions", type=Path, help="your own questions, one a line")
    parser.add_argument("--samples", type=int, default=4, help="answers to each question")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(argv)

    def run() -> int:
        if given.teach is not None:
            teach(given.teach[0], given.teach[1:], given.out)
            return 0
        missing = [name for name in ("model", "old", "new") if vars(given)[name] is None]
        if missing:
            raise UserError(f"--{missing[0]}: is needed, or --teach")
        make(_wanted(given), given.out)
        return 0

    return guarded(run)


def _wanted(given: argparse.Namespace) -> Wanted:
    own = given.questions.read_text(encoding="utf-8").splitlines() if given.questions else QUESTIONS
    questions = tuple(line.strip() for line in own if line.strip())
    drawn = (given.samples, given.temperature, given.max_new_tokens, given.seed)
    return Wanted(given.model, given.old, given.new, questions, *drawn)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
