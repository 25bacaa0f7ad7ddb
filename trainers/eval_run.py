"""What eval.py does with a finished run: sample from it, evaluate it, or answer AlpacaEval's instructions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from dataloaders.prompts import Prompt, prompts
from dataloaders.tokenization import turns
from prospect.checkpoint.commit import MANIFEST, file_hash, write_text
from prospect.checkpoint.origin import Origin, resolve
from prospect.config.schema import Config, DatasetConfig, Mode, Split
from prospect.errors import UserError
from prospect.logs import log, log_to
from prospect.model.load import Precision, load_model
from prospect.parallel import World, launch
from prospect.progress import progress
from prospect.sampling.generate import Answer, Settings, Task, sample
from prospect.sampling.samples import Partial, Sample, finished_key, move_aside, write
from trainers import make_trainer
from trainers.basic import Engine
from trainers.evaluation import intervals, named, tallies
from trainers.setup import Text, prepare_data, prepare_policy, prepare_reference, prepare_text


def evaluate_run(config: Config) -> int:
    """``mode=sample|eval|alpacaeval`` in every process; the exit code."""
    return launch(_WORKERS[config.mode], config)


def _evaluate(config: Config, world: World) -> int:
    """``mode=eval``: the trainer's own metrics on ``split``, against the model the run started from."""
    log_to(None, world.rank)
    trainer = make_trainer(config)
    origin = _policy_origin(config)
    text = prepare_text(config, origin or _run_origin(config))
    data = prepare_data(config, trainer, text, evaluating=True)
    reference, _ = prepare_reference(config, trainer, data, text, world, None, None)
    policy = prepare_policy(config if origin else _unaligned(config), origin, text, world)
    totals = tallies(trainer, Engine(policy, reference, data, world))
    if world.is_main:
        found, ci95 = named(totals), intervals(totals)
        file = _run_folder(config) / f"eval-{config.split}.json"
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
        write(file, samples, asdict(config), key)
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


_WORKERS = {Mode.sample: _sample, Mode.eval: _evaluate, Mode.alpacaeval: _alpacaeval}


def _answers(config: Config, world: World, file: Path) -> tuple[list[Sample], str]:
    """All samples of the configuration, continuing what an earlier call has begun; and their key."""
    log_to(None, world.rank)
    origin = _policy_origin(config)
    text = prepare_text(config, origin or _run_origin(config))
    everything = {(p.id, k): p for p in prompts(config) for k in range(config.samples_per_prompt)}
    key = _key(config, origin)
    if world.is_main and file.exists() and finished_key(file) != key:
        log.info("an earlier sample file is kept as %s", move_aside(file))
    partial = Partial(file, key, world.rank)
    done = partial.done()
    tasks = [
        Task(prompt_id, k, _prompt_ids(config, prompt, text))
        for (prompt_id, k), prompt in everything.items()
        if (prompt_id, k) not in done
    ][world.rank :: world.size]
    settings = Settings(
        seed=config.seed,
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=config.max_new_tokens or config.model.max_length - config.model.max_prompt_length,
        batch_size=config.model.eval_batch_size,
    )
    if tasks:
        model = load_model(config if origin else _unaligned(config), origin, text.tokenizer, "sdpa")
        nn.Module.to(model, world.device, Precision.of(config.model.policy_dtype, world.device).compute).eval()
        with progress(f"sampling {config.exp_name}", len(tasks), "answers", show=world.is_main) as bar:
            for batch in sample(model, text.tokenizer, text.chat.stop_ids, tasks, settings):
                partial.add(_sample_of(everything[t.prompt_id, t.sample], t, answer, text) for t, answer in batch)
                bar.advance(len(batch))
    world.barrier()
    done = partial.done()
    return [done[wanted] for wanted in everything], key


def _prompt_ids(config: Config, prompt: Prompt, text: Text) -> tuple[int, ...]:
    ids = text.chat.encode(text.chat.prompt(turns(prompt.messages)))
    return tuple(ids[-config.model.max_prompt_length :])


def _sample_of(prompt: Prompt, task: Task, answer: Answer, text: Text) -> Sample:
    given = text.tokenizer.decode(list(task.prompt_ids), clean_up_tokenization_spaces=False)
    assert isinstance(given, str)
    messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
    return Sample(
        prompt=given,
        chosen=prompt.chosen,
        policy=answer.text,
        prompt_id=prompt.id,
        sample=task.sample,
        dataset=prompt.dataset,
        messages=messages,
        n_tokens=answer.n_tokens,
        finish=answer.finish,
    )


def _run_folder(config: Config) -> Path:
    assert config.exp_name is not None
    return Path(config.local_run_dir or Path(config.cache_dir) / config.exp_name)


def _run_origin(config: Config) -> Origin | None:
    folder = _run_folder(config) / "LATEST"
    return Origin(folder, is_state_dict=False) if folder.is_dir() else None


def _policy_origin(config: Config) -> Origin | None:
    """What ``saved_policy`` names: a folder of the run, or any model; None is the model before any training."""
    if config.saved_policy is None:
        return None
    inside = _run_folder(config) / config.saved_policy
    if inside.exists() or config.saved_policy == "LATEST":
        if not inside.exists():
            raise UserError(f"saved_policy: {_run_folder(config)} holds no LATEST; has the run trained?")
        return resolve(str(inside.absolute()), Path(config.cache_dir))
    return resolve(config.saved_policy, Path(config.cache_dir))


def _unaligned(config: Config) -> Config:
    return replace(config, model=replace(config.model, load_from=None))


def _key(config: Config, origin: Origin | None) -> str:
    """Hash of everything that decides the samples: weights, prompts, drawing."""
    weights = "unaligned"
    if origin is not None:
        manifest = origin.path / MANIFEST
        weights = file_hash(manifest if manifest.is_file() else next(origin.path.glob("*.safetensors"), origin.path))
    m = config.model
    drawing = (config.seed, config.temperature, config.top_p, config.max_new_tokens, m.max_length, m.max_prompt_length)
    data = {name: asdict(dataset) for name, dataset in config.datasets.items()}
    parts = [weights, drawing, data, config.split, config.n_samples, config.samples_per_prompt, m.policy_dtype]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
