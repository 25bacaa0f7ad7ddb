"""The training loop: steps, evaluations, checkpoints, metrics. Knows nothing of any particular loss."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dataloaders import hub_ids
from dataloaders.packing import length
from dataloaders.tokenization import Tokenized
from prospect.checkpoint.run import Run
from prospect.checkpoint.state import Checkpoints, Position
from prospect.config.schema import Config
from prospect.errors import ProspectError
from prospect.logs import log
from prospect.metrics import Tally
from prospect.model.export import Facts, save_policy
from prospect.optim import make_schedule
from prospect.progress import Progress, progress
from prospect.reference import CachedReference, Following
from prospect.tracking import Tracker, last_values
from prospect.updates import Updates
from trainers.ahead import Ahead
from trainers.basic import BasicTrainer, Engine, Work
from trainers.evaluation import evaluate
from trainers.probes import Probes
from trainers.setup import Text

_KL_SLACK = 1.5  # of PPO implementations with a target_kl
INTERRUPTED = 4  # exit code: state saved, the same command continues
_HIGHER_IS_BETTER = ("rewards/accuracies", "rewards/auc", "rewards/margins", "rewards/chosen", "logps/chosen")


class DivergedError(ProspectError):
    """A loss or gradient that is not a number."""

    exit_code = 3


class Loop:
    """One run's way from its position to its last step."""

    def __init__(
        self,
        config: Config,
        trainer: BasicTrainer,
        engine: Engine,
        run: Run,
        text: Text,
        checkpoints: Checkpoints,
        position: Position,
    ) -> None:
        self.config, self.trainer, self.run, self.text = config, trainer, run, text
        self.checkpoints, self.position = checkpoints, position
        self.parameters = engine.policy.parameters()
        head = engine.policy.value_head
        self.updates = Updates(config, self.parameters, [*head.parameters()] if head else [], engine.world.size)
        self.optimizer = self.updates.optimizer
        self.engine = replace(engine, before_last_backward=self.updates.arm)
        self.schedule = make_schedule(config, self.optimizer, engine.data.n_steps)
        self.tracker: Tracker | None = None
        self.probes: Probes | None = None
        self.window, self.window_tokens, self.window_start = Tally(), 0, time.monotonic()
        self.shown = ""
        self.stop = False

    def restore(self, folder: Path) -> None:
        """Take optimizer and schedule from a checkpoint."""
        optimizer, schedule = self.checkpoints.optimizer(folder, self.engine.policy.device)
        self.optimizer.load_state_dict(optimizer)
        self.trainer.state.update(self.position.trainer)
        if self.config.sync_reference_every:
            self._following().load_state(self.checkpoints.reference(folder, self.engine.policy.device))
        self.schedule.load_state_dict(schedule)
        if self.engine.world.is_main:
            self._publish(folder)  # a kill may have come between saving and publishing

    def run_to_end(self) -> tuple[int, dict[str, Any]]:
        """Train until the last step or a signal; exit code and summary."""
        main, data = self.engine.world.is_main, self.engine.data
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
        before = {number: signal.signal(number, self._on_signal) for number in signals}
        if main:
            done = self.position.step or -1  # a run without a saved state evaluates the start again
            self.tracker = Tracker(self.config, self.run.folder, done, self.position.tracker)
            self.position.tracker = self.tracker.ids
            self.probes = Probes(self.config, self.engine.policy, self.text, self.run.folder / "probes.jsonl", done)
        try:
            if self.config.do_first_eval and self.position.step == 0:
                self._evaluate()
            if self.position.step == 0:
                self._ask_probes()
            title = f"{self.config.loss.name} {self.config.exp_name}"
            with (
                progress(title, data.n_examples, "examples", self.position.examples, show=main) as bar,
                Ahead(self._work, data.n_steps) as ahead,
            ):
                while self.position.step < data.n_steps and self.position.stopped is None:
                    if self._one_step(ahead.take(self.position.step), bar):
                        self._save()
                        log.info("interrupted; the state of step %d is saved", self.position.step)
                        return INTERRUPTED, {}
            return 0, self._summary() if main else {}
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self.tracker is not None:
                self.tracker.close()

    def _work(self, number: int) -> Work:
        return self.trainer.work(self.engine.data.step(number), number, self.engine)

    def _one_step(self, work: Work, bar: Progress) -> bool:
        """One optimizer step and what falls due after it; whether to stop."""
        position, records = self.position, work.records
        torch.manual_seed(self.config.seed * 1_000_003 + position.step)
        tallies: list[Tally] = []
        for update in range(self.trainer.updates):
            tally, norm, stop, log_due = self._update(work, update)
            tallies.append(tally)
        self.schedule.step()
        before = position.examples
        position.step, position.examples = position.step + 1, before + len(records)
        self._mind_reference(tally)
        self.window = Tally.joined([self.window, *tallies])
        self.window_tokens += sum(map(length, records))
        last = position.step == self.engine.data.n_steps or position.stopped is not None
        if log_due or last:
            self._log(norm)
        bar.advance(len(records), note=self.shown)
        self._after_step(before, last)
        return bool(stop) and not last

    def _update(self, work: Work, update: int) -> tuple[Tally, float, float, float]:
        """One optimizer update on a batch: metrics, norm of the gradient, whether to stop, whether to log."""
        world = self.engine.world
        self.updates.begin(self.position.step * self.trainer.updates + update)
        tally = self.trainer.compute(work, self.engine, train=True, update=update)
        world.sum_gradients(self.parameters)
        norms = tally.read(self.updates.norms())
        norm = math.hypot(*norms)
        due = time.monotonic() - self.window_start >= self.config.minimum_log_interval_secs
        healthy = math.isfinite(norm) and all(map(math.isfinite, tally.sums.values()))
        sick, stop, log_due = world.sum(float(not healthy), float(self.stop), float(due and world.is_main))
        if sick:
            self._refuse(work.records)
        self.updates.clip(norms)
        self.updates.step()
        return tally, norm, stop, log_due

    def _mind_reference(self, tally: Tally) -> None:
        """Let the reference follow where that is due, and stop where the policy has left it too far behind."""
        config, position = self.config, self.position
        if config.sync_reference_every and position.step % config.sync_reference_every == 0:
            self._following().sync(self.engine.policy, config.sync_reference_mixing)
        if config.target_kl is None:
            return
        total, count = self.engine.world.sum(tally.sums.get("approx_kl", 0.0), tally.counts.get("approx_kl", 0.0))
        if count and total / count > _KL_SLACK * config.target_kl:
            position.stopped = f"approx_kl {total / count:.4g} is above {_KL_SLACK} × target_kl={config.target_kl:g}"
            log.info("step %d: %s; this was the last step", position.step, position.stopped)

    def _following(self) -> Following:
        assert isinstance(self.engine.reference, Following)
        return self.engine.reference

    def _after_step(self, before: int, last: bool) -> None:
        config, done = self.config, self.position.examples
        improved = False
        if last or _crossed(before, done, config.eval_every):
            improved = self._evaluate()
            self._ask_probes()
        milestone = config.intermediate_checkpoints and not last and _crossed(before, done, config.eval_every)
        self.position.milestone = milestone
        if improved or milestone or last or _crossed(before, done, config.save_every or config.eval_every):
            self._save()

    def _evaluate(self) -> bool:
        """Evaluate, log, and say whether this is the best so far (the start never is)."""
        found = evaluate(self.trainer, self.engine)
        if self.tracker is not None:
            self.tracker.log({"examples": self.position.examples, **found}, self.position.step)
        log.info("eval at %d examples: %s", self.position.examples, _brief(found))
        name = f"eval/{self.config.best_metric}"
        if name not in found:
            return False
        value = -found[name] if self.config.best_metric in _HIGHER_IS_BETTER else found[name]
        if self.position.step == 0 or (self.position.best is not None and value >= self.position.best):
            return False
        self.position.best, self.position.best_step = value, self.position.step
        return True

    def _ask_probes(self) -> None:
        if self.probes is not None:
            self.probes.ask(self.position.step, self.position.examples)

    def _log(self, grad_norm: float) -> None:
        world, position = self.engine.world, self.position
        means = Tally.joined(world.gather(self.window)).means()
        seconds = max(time.monotonic() - self.window_start, 1e-9)
        means |= {
            "grad_norm": grad_norm,
            "lr": float(self.schedule.get_last_lr()[0]),
            "tokens_per_second": self.window_tokens / seconds,
            "examples": position.examples,
            "epoch": position.examples / self.engine.data.order.epoch_length,
        }
        self.shown = _brief({name: means[name] for name in _SHOWN if name in means})
        if self.tracker is not None:
            self.tracker.log(means, position.step)
        self.window, self.window_tokens, self.window_start = Tally(), 0, time.monotonic()

    def _save(self) -> None:
        """Commit the resume state, then publish the policy in it."""
        world = self.engine.world
        self.position.trainer = dict(self.trainer.state)
        if world.is_main:
            following = self._following().state() if self.config.sync_reference_every else None
            folder = self.checkpoints.save(
                self.position,
                self._save_policy,
                self.optimizer.state_dict(),
                self.schedule.state_dict(),
                following,
            )
            self._publish(folder)
        world.barrier()

    def _save_policy(self, folder: Path) -> None:
        policy = self.engine.policy
        file = self.run.folder / "metrics.jsonl"
        last = last_values(file) if file.is_file() else {}
        results = {name: value for name, value in last.items() if name.startswith("eval/")}
        facts = Facts(hub_ids(self.config.datasets), results)
        chat = self.text.chat
        save_policy(policy.model, chat.tokenizer, chat.stop_ids, self.config, folder, policy.adapter, facts)
        if policy.value_head is not None:
            policy.value_head.save(folder)

    def _publish(self, folder: Path) -> None:
        """Export a checkpoint's policy under the names that its position earns."""
        self.run.export(folder, "LATEST")
        if self.position.best_step == self.position.step:
            self.run.export(folder, "BEST")
        if self.position.milestone:
            self.run.export(folder, f"step-{self.position.examples}")

    def _refuse(self, records: Sequence[Tokenized]) -> None:
        ids = [record.id for record in records]
        log.error("non-finite loss or gradient in step %d; its records: %s", self.position.step, " ".join(ids))
        kept = "nothing of it was saved" if self.config.optimizer_in_backward else "nothing was updated"
        raise DivergedError(
            f"step {self.position.step}: the loss or a gradient is not finite; {kept}. Records: "
            f"{', '.join(ids[:4])}{', …' if len(ids) > 4 else ''} (all in {self.run.folder / 'log'})"
        )

    def _summary(self) -> dict[str, Any]:
        folder = self.run.folder
        best, reference = folder / "BEST", self.engine.reference
        last = last_values(folder / "metrics.jsonl")
        return {
            "examples": self.position.examples,
            **({"stopped early": self.position.stopped} if self.position.stopped else {}),
            "train": {k: round(v, 6) for k, v in last.items() if not k.startswith("eval/")},
            "eval": {k: round(v, 6) for k, v in last.items() if k.startswith("eval/")},
            "policy": str(folder / "LATEST"),
            **({"best policy": f"{best} (step {self.position.best_step})"} if best.is_dir() else {}),
            "metrics": str(folder / "metrics.jsonl"),
            **({"weights": self.trainer.weights} if self.trainer.weights else {}),
            **({"reference log-probabilities": reference.said} if isinstance(reference, CachedReference) else {}),
            **({"probes": found} if (found := self.probes and self.probes.summary()) else {}),
        }

    def _on_signal(self, number: int, frame: object) -> None:
        if self.stop:
            raise KeyboardInterrupt
        self.stop = True


_SHOWN = ("loss", "rewards/margins", "rewards/accuracies", "rewards/auc", "tokens_per_second")


def _crossed(before: int, now: int, every: int) -> bool:
    return now // every > before // every


def _brief(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
