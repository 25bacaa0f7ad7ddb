"""What eval.py does with a finished run: sample, evaluate, answer AlpacaEval's or MT-Bench's questions, publish."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from dataloaders.prompts import Prompt, prompts
from prospect.checkpoint.commit import write_text
from prospect.checkpoint.run import Run
from prospect.config.environment import written
from prospect.config.schema import Config, DatasetConfig, Mode, Split
from prospect.logs import log, log_to
from prospect.parallel import World, launch
from prospect.progress import progress
from prospect.sampling.generate import Answer, Settings, Task, sample
from prospect.sampling.room import Room, fit_all, longest_answer
from prospect.sampling.samples import Partial, Sample, finished_key, move_aside, write
from trainers import make_trainer
from trainers.basic import Engine
from trainers.evaluation import intervals, named, tallies
from trainers.exports import merge_run, push_run
from trainers.mtbench import answer_mtbench
from trainers.probes import ask_before_and_after
from trainers.saved_policy import policy_origin, samples_key, sampling_model, source_of, text_of
from trainers.setup import Text, prepare_data, prepare_policy, prepare_reference, settle_sharing


def evaluate_run(config: Config) -> int:
    """Merging and publishing in this process, any other mode of eval.py in every process; the exit code."""
    if config.mode is Mode.merge:
        return merge_run(config)
    if config.mode is Mode.push:
        return push_run(config)
    return launch(_WORKERS[config.mode], config)


def _evaluate(config: Config, world: World) -> int:
    """``mode=eval``: the trainer's own metrics on ``split``, against the model the run started from."""
    log_to(None, world.rank)
    trainer = make_trainer(config)
    origin = policy_origin(config)
    text = text_of(config, origin)
    data = trainer.prepare(prepare_data(config, trainer, text, evaluating=True), world)
    if weights := Run.of(config).manifest().get("weights"):  # of the training data
        trainer.learn_counts(weights["desirable"], weights["undesirable"])
    reference = None
    if trainer.needs_reference:
        reference, _ = prepare_reference(config, trainer, data, text, world, None, None)
    source, continues = source_of(config, origin), origin is not None
    policy = prepare_policy(source, origin, text, world, head=trainer.head, continues=continues)
    settle_sharing(policy, data)
    totals = tallies(trainer, Engine(policy, reference, data, world))
    if world.is_main:
        found, ci95 = named(totals), intervals(totals)
        file = Run.of(config).folder / f"eval-{config.split}.json"
        content = {"split": config.split, "policy": config.saved_policy, **found, "ci95": ci95}
        write_text(file, json.dumps(content, indent=1))
        for name, value in found.items():
            print(f"{name}: {value:.6g}" + ("  (95%: {:.4f} to {:.4f})".format(*ci95[name]) if name in ci95 else ""))
        print(f"written: {file}")
    return 0


def _sample(config: Config, world: World) -> int:
    """``mode=sample``: answers to the split's prompts, beside the chosen ones."""
    file = Path(config.samples_dir) / f"{config.exp_name}.json"
    samples, key = _answers(config, world, file)
    if world.is_main:
        write(file, samples, written(config), key)
        Partial(file, key, 0).clear()
        print(f"written: {file} ({len(samples)} samples)")
    return 0


def _alpacaeval(config: Config, world: World) -> int:
    """``mode=alpacaeval``: answers in the form that the alpaca_eval command takes."""
    given = config.datasets.get("alpacaeval", DatasetConfig(source="alpacaeval"))
    config = replace(config, datasets={"alpacaeval": given}, split=Split.all)
    file = Path(config.samples_dir) / f"alpaca_{config.exp_name}.json"
    samples, key = _answers(config, world, file)
    if world.is_main:
        categories = {prompt.id: prompt.category for prompt in prompts(config)}
        rows = [
            {
                "instruction": item.messages[-1]["content"],
                "output": item.policy,
                "generator": config.exp_name,
                "dataset": categories[item.prompt_id],
            }
            for item in samples
        ]
        write_text(file, json.dumps(rows, indent=1))
        Partial(file, key, 0).clear()
        print(f"written: {file} ({len(rows)} answers)")
    return 0


_WORKERS = {
    Mode.sample: _sample,
    Mode.eval: _evaluate,
    Mode.alpacaeval: _alpacaeval,
    Mode.mtbench: answer_mtbench,
    Mode.probe: ask_before_and_after,
}


def _answers(config: Config, world: World, file: Path) -> tuple[list[Sample], str]:
    """All samples of the configuration, continuing what an earlier call has begun; and their key."""
    log_to(None, world.rank)
    origin = policy_origin(config)
    text = text_of(config, origin)
    everything = {(p.id, k): p for p in prompts(config) for k in range(config.samples_per_prompt)}
    key = samples_key(config, origin, text)
    if world.is_main and file.exists() and finished_key(file) != key:
        log.info("an earlier sample file is kept as %s", move_aside(file))
    partial = Partial(file, key, world.rank)
    done = partial.done()
    waiting = [wanted for wanted in everything if wanted not in done][world.rank :: world.size]
    settings = Settings(
        seed=config.seed,
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=longest_answer(config),
        batch_size=config.model.eval_batch_size,
    )
    if waiting:
        model = sampling_model(config, origin, text, world)
        talks = {prompt_id: everything[prompt_id, k].conversation for prompt_id, k in waiting}
        asked = fit_all(text.chat, talks, Room.of(model, settings.max_new_tokens))
        tasks = [Task(prompt_id, k, asked[prompt_id].ids, asked[prompt_id].cut) for prompt_id, k in waiting]
        with progress(f"sampling {config.exp_name}", len(tasks), "answers", show=world.is_main) as bar:
            for batch in sample(model, text.chat, tasks, settings):
                partial.add(_sample_of(everything[t.prompt_id, t.sample], t, answer, text) for t, answer in batch)
                bar.advance(len(batch))
    world.barrier()
    done = partial.done()
    return [done[wanted] for wanted in everything], key


def _sample_of(prompt: Prompt, task: Task, answer: Answer, text: Text) -> Sample:
    given = text.tokenizer.decode(list(task.prompt_ids), clean_up_tokenization_spaces=False)
    assert isinstance(given, str)
    return Sample(
        prompt=given,
        chosen="" if prompt.chosen is None else text.chat.answer_text(prompt.conversation, prompt.chosen),
        policy=answer.text,
        prompt_id=prompt.id,
        sample=task.sample,
        dataset=prompt.dataset,
        messages=prompt.conversation.rows(),
        n_tokens=answer.n_tokens,
        finish=answer.finish,
        tools=prompt.conversation.tool_rows(),
        prompt_cut=task.cut,
    )
