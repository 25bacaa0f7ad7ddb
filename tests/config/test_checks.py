from __future__ import annotations

import inspect

import pytest
import torch
from transformers import SchedulerType

from prospect.config.checks import BITSANDBYTES, OPTIMIZERS, SCHEDULES, rehearse
from prospect.config.schema import Config
from prospect.model.adapter import bitsandbytes


def test_the_tables_of_names_are_those_of_torch_and_transformers() -> None:
    kinds = [k for k in vars(torch.optim).values() if inspect.isclass(k) and issubclass(k, torch.optim.Optimizer)]
    assert {kind.__name__ for kind in kinds} - {"Optimizer"} == set(OPTIMIZERS)
    assert {str(kind.value) for kind in SchedulerType} == set(SCHEDULES)


def test_every_optimizer_either_trains_or_is_refused_before_anything_is_loaded() -> None:
    refused = {name for name in OPTIMIZERS if list(rehearse(Config(optimizer=name)))}
    assert refused == {"LBFGS", "Muon", "SparseAdam"}  # a closure, matrices only, sparse gradients only


def test_arguments_are_tried() -> None:
    assert not list(rehearse(Config(optimizer_args={"betas": [0.9, 0.95], "weight_decay": 0.1})))
    (line,) = rehearse(Config(optimizer_args={"betas": [2, 3]}))
    assert line.startswith("optimizer: AdamW with optimizer_args={'betas': [2, 3]} cannot train a model here (")
    assert not list(rehearse(Config(lr_schedule="cosine_with_min_lr", lr_schedule_args={"min_lr_rate": 0.1})))
    (line,) = rehearse(Config(lr_schedule="linear", lr_schedule_args={"min_lr": 1}))
    assert line.startswith("lr_schedule: linear with lr_schedule_args={'min_lr': 1} cannot train a model here (")


def test_bitsandbytes_has_the_optimizers_that_are_named() -> None:
    pytest.importorskip("bitsandbytes")
    kinds = {
        name
        for name, k in vars(bitsandbytes().optim).items()
        if inspect.isclass(k) and issubclass(k, torch.optim.Optimizer)
    }
    assert kinds - set(OPTIMIZERS) == set(BITSANDBYTES)


@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdamW8bit", "PagedAdamW32bit", "Lion8bit", "AdEMAMix8bit"])
def test_optimizers_of_bitsandbytes_step_here(name: str) -> None:
    pytest.importorskip("bitsandbytes")
    assert not list(rehearse(Config(optimizer=name)))
