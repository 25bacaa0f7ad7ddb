"""What a finished run gives to others: its adapter merged into a plain model, its folder on the hub."""

from __future__ import annotations

from pathlib import Path

from dataloaders import hub_ids
from prospect.checkpoint.commit import MANIFEST
from prospect.checkpoint.origin import origin_at
from prospect.checkpoint.run import Run
from prospect.config.schema import Config
from prospect.errors import UserError
from prospect.hub import push
from prospect.logs import log, log_to
from prospect.model.merge import merge
from trainers.saved_policy import policy_origin, text_of
from trainers.setup import Text


def merge_run(config: Config) -> int:
    """``mode=merge``: the run's adapter and the model under it, as a plain model in ``out``."""
    log_to(None, 0)
    origin = policy_origin(config)
    if config.out is None:
        raise UserError("out: name the folder for the merged model: ++out=<folder>")
    if origin is None or not origin.is_adapter:
        what = "the model before training" if origin is None else str(origin.path)
        raise UserError(f"mode: there is nothing to merge: {what} is a whole model, not an adapter")
    target = Path(config.out).expanduser().absolute()
    if target.exists() and not (target / MANIFEST).is_file() and any(target.iterdir()):
        raise UserError(f"out: {target} holds something else; name a new folder")
    if target == origin.path.absolute():
        raise UserError("out: this is the adapter itself; name another folder")
    text = text_of(config, origin)
    worst = merge(config, origin.path, text.tokenizer, text.chat.stop_ids, target, hub_ids(config.datasets))
    print(f"written: {target} (its logits differ from the adapter's by {worst:.1e} at most)")
    return 0


def merge_exports(config: Config, folder: Path, text: Text) -> None:
    """``peft.merge_on_export``: LATEST and BEST as plain models; the adapters stay in the checkpoints."""
    for name in ("LATEST", "BEST"):
        if (folder / name).is_dir() and origin_at(folder / name).is_adapter:
            place = folder / name
            worst = merge(config, place, text.tokenizer, text.chat.stop_ids, place, hub_ids(config.datasets))
            log.info("merged: %s (its logits differ from the adapter's by %.1e at most)", folder / name, worst)


def push_run(config: Config) -> int:
    """``mode=push``: the run's policy with its card and configuration as a repository on the hub."""
    origin = policy_origin(config)
    if origin is None or origin.is_state_dict:
        raise UserError("saved_policy: name a policy of the run to push: LATEST, BEST, step-<examples>")
    print(f"pushed: {push(origin.path, Run.of(config).folder / 'config.yaml', config.repo, config.private)}")
    return 0
