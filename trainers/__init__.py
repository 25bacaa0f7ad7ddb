"""The table of trainers: the name that a loss's YAML gives under ``trainer``, and the class it means."""

from __future__ import annotations

from prospect.config.schema import Config, LossConfig
from prospect.errors import UserError, nearest
from trainers.basic import BasicTrainer
from trainers.dpo import DPOTrainer
from trainers.kto import KTOTrainer
from trainers.kto_simple import SimpleKTOTrainer
from trainers.sft import SFTTrainer

TRAINERS: dict[str, type[BasicTrainer]] = {
    "SFTTrainer": SFTTrainer,
    "DPOTrainer": DPOTrainer,
    "KTOTrainer": KTOTrainer,
    "SimpleKTOTrainer": SimpleKTOTrainer,
}

# Names under which the original's tutorial asks for a data loader; each kind of record has one.
DATALOADERS = {
    "answers": "SFTDataLoader",
    "pairs": "PairedPreferenceDataLoader",
    "labelled": "UnpairedPreferenceDataLoader",
}


def losses() -> dict[str, type[LossConfig]]:
    """Each trainer's hyperparameters, by trainer name."""
    return {name: trainer.Config for name, trainer in TRAINERS.items()}


def make_trainer(config: Config) -> BasicTrainer:
    """The trainer that a configuration names.

    Raises:
        UserError: an unknown name, or a YAML that contradicts what the class declares.
    """
    loss = config.loss
    if loss.trainer not in TRAINERS:
        raise UserError(f"loss.trainer: there is no trainer `{loss.trainer}`{nearest(loss.trainer, TRAINERS)}")
    trainer = TRAINERS[loss.trainer]
    loader = DATALOADERS[trainer.records]
    if loss.dataloader not in (None, loader):
        raise UserError(
            f"loss.dataloader: {loss.trainer} trains on {trainer.records} and takes {loader}, not {loss.dataloader}; "
            f"change it in config/loss/{loss.name}.yaml or `records` in the class"
        )
    if loss.use_reference_model not in (None, trainer.needs_reference):
        raise UserError(
            f"loss.use_reference_model: {loss.trainer} declares needs_reference={trainer.needs_reference}; "
            f"change use_reference_model in config/loss/{loss.name}.yaml or needs_reference in the class"
        )
    return trainer(config)
