"""From a stage and its configuration to what Lightning steps."""

from collections.abc import Callable

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from data_modules.errors import InputError

Optimisation = Callable[[nn.Module, int, int], tuple[Optimizer, LRScheduler]]
"""From a module, its optimiser steps an epoch and its epochs to the optimiser and a schedule stepped as often."""


def configure(optimisation: Optimisation, module: pl.LightningModule) -> OptimizerLRScheduler:
    """Returns what ``configure_optimizers`` must, for the steps that the trainer is going to take.

    Raises:
        InputError: If the trainer has no number of epochs to plan the schedule by.
    """
    epochs = module.trainer.max_epochs
    if epochs is None or epochs < 1:
        raise InputError(
            "trainer.max_epochs is not set: the learning-rate schedule needs a number of epochs of 1 or more"
        )
    steps = max(1, round(int(module.trainer.estimated_stepping_batches) / epochs))
    optimizer, schedule = optimisation(module, steps, epochs)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
