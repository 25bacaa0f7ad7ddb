"""``mode=train``: a run from its configuration to LATEST, in every process of it."""

from __future__ import annotations

import json
import logging
import math
import sys
from contextlib import ExitStack
from typing import Any

from prospect.checkpoint.manifest import facts
from prospect.checkpoint.origin import Origin
from prospect.checkpoint.parents import check_parents, parents_of
from prospect.checkpoint.run import Run
from prospect.checkpoint.state import Checkpoints, Position
from prospect.config.schema import Config
from prospect.errors import ProspectError, UserError
from prospect.logs import log, log_to
from prospect.model.load import origin_of
from prospect.parallel import World, launch
from trainers import losses, make_trainer
from trainers.basic import BasicTrainer, Engine
from trainers.budget import settled
from trainers.exports import merge_exports
from trainers.kernels import settle_kernels
from trainers.loop import Loop
from trainers.probes import shown
from trainers.setup import prepare_data, prepare_reference, prepare_text, prepare_trained, settle_sharing

_START_TOLERANCE = 1e-4  # of metrics that are known while policy and reference are one model; ×100 in bf16


def train(config: Config) -> int:
    """Train, continue or report a finished run; the exit code."""
    make_trainer(config)
    return launch(train_in_process, config)


def train_in_process(config: Config, world: World) -> int:
    """What each process of a run does."""
    run = Run.of(config)
    with ExitStack() as stack:
        problem: ProspectError | None = None
        if world.is_main:
            try:
                stack.enter_context(run.claim(config, losses))
                check_parents(run.folder, run.manifest().get("parents", []))
            except ProspectError as error:
                problem = error
        problem = world.from_main(problem)
        if problem is not None:
            raise problem
        if world.from_main(run.finished()):
            _say_finished(run, world)
            return 0
        log_to(run.folder / "log", world.rank)
        try:
            return _train(config, run, world)
        except Exception as error:
            to_file = [handler for handler in log.handlers if isinstance(handler, logging.FileHandler)]
            for handler in to_file:
                handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, "stopped", (), sys.exc_info()))
            if isinstance(error, ProspectError):
                raise
            log.error("%s: %s (see %s)", type(error).__name__, error, run.folder / "log")
            raise


def _train(config: Config, run: Run, world: World) -> int:
    trainer = make_trainer(config)
    log.info("run: %s, loss=%s, seed %d", run.folder, config.loss.name, config.seed)
    checkpoints = Checkpoints(run.folder / "checkpoints", config.keep_checkpoints)
    found = world.from_main(checkpoints.latest() if world.is_main else None)
    folder, position = found if found is not None else (None, Position())
    start = origin_of(config)
    saved = folder / "policy" if folder is not None else None
    source = start if saved is None else Origin(saved, is_state_dict=False)
    text = prepare_text(config, source, trainer.control_tokens, world.from_main(run.chat_day()))
    if world.is_main and text.chat.uses_date:
        run.keep_chat_day(text.chat.day)
    data = trainer.prepare(prepare_data(config, trainer, text), world)
    policy = prepare_trained(config, start, saved, text, world, head=trainer.head)
    settle_sharing(policy, data)
    settle_kernels(config, policy, position, world)
    digest = None if folder is None else run.manifest()["parents"][0]["digest"]
    as_at_start = policy if folder is None or policy.adapter is not None else None
    reference, digest = prepare_reference(config, trainer, data, text, world, digest, as_at_start)
    data = settled(config, data, policy, position, world)
    engine = Engine(policy, reference, data, world)
    if folder is None:
        _check_start(trainer, engine)
        if world.is_main:
            hardware = f"{world.size} × {world.device}"
            known = facts(parents_of(config, start, digest), data.fingerprints, config.seed, hardware)
            run.start(known | ({"weights": trainer.weights} if trainer.weights else {}))
    else:
        log.info("continuing from %s (%d of %d steps done)", folder, position.step, data.n_steps)
    loop = Loop(config, trainer, engine, run, text, checkpoints, position)
    if folder is not None:
        loop.restore(folder)
    code, summary = loop.run_to_end()
    if code == 0 and world.is_main:
        if config.peft.merge_on_export:
            merge_exports(config, run.folder, text)
        run.finish(summary)
        _say_finished(run, world)
    return code


def _check_start(trainer: BasicTrainer, engine: Engine) -> None:
    """While policy and reference are one model, some values are known; a run that misses them is wrong."""
    records = engine.data.step(0)
    worst = engine.policy.check_against_own_forward(engine.data.microbatches(records[:4])[0].to(engine.policy.device))
    log.info("start check: packed log-probabilities equal the model's own forward (largest difference %.1e)", worst)
    known = trainer.at_start()
    if not known:
        return
    tally = trainer.step(records, 0, engine, train=False)
    tally.read()
    means = tally.joined(engine.world.gather(tally)).means()
    allowed = _START_TOLERANCE * (100 if engine.policy.autocast is not None else 1)
    for name, expected in known.items():
        got = means[name]
        if not math.isclose(got, expected, abs_tol=allowed * max(1, abs(expected))):
            raise UserError(
                f"loss={trainer.config.loss.name}: at the start {name} is {got:.6f} and must be {expected:.6f}: "
                "the reference is not the model that training starts from"
            )
        log.info("start check: %s is %.6f, as it must be while policy and reference are equal", name, got)


def _say_finished(run: Run, world: World) -> None:
    if not world.is_main:
        return
    summary: dict[str, Any] = run.manifest().get("summary", {})
    print(f"finished: {run.folder}")
    probes = summary.pop("probes", [])
    for name, value in summary.items():
        print(f"  {name}: {value if isinstance(value, str) else json.dumps(value)}")
    if probes:
        print(f"\n{shown(probes)}")
