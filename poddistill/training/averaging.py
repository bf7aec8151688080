"""Averages of the weights over the steps of a training."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel

from data_modules.errors import InputError


class WeightEMA(WeightAveraging):
    """Validates, selects and saves an exponential moving average of the weights and buffers, w, instead of the last.

        ema_n = d_n ema_(n-1) + (1 - d_n) w_n,    d_n = min(decay, n / (n + 9)),    ema_1 = w_1

    n counts the optimiser steps. With a fixed d the average would still hold d^n of the first step's weights: a
    training of few steps, as with few labels or many processes, would be judged by how it started. n / (n + 9) lets it
    hold about the last tenth of the steps until `decay` allows more; it is that of TensorFlow's
    ExponentialMovingAverage with ``num_updates``. Of integers, such as the count of a batch normalisation, it is the
    last value.

    The average lies where the training runs, and is updated there without waiting for it: Lightning's own would lie on
    the host, where the weights still are when it is made, and copy all of them there in every step.

    Args:
        decay: The largest d, in (0, 1).

    Raises:
        InputError: It is out of range.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise InputError(f"decay is {decay}: give a part in (0, 1)")
        super().__init__()
        self.decay = decay
        self._n: int | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Makes the average when a fit begins, on the device of the training."""
        self._device = trainer.strategy.root_device
        self._n = None
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates the average after each step of the optimiser."""
        if trainer.global_step > self._latest_update_step and self._average_model is not None:
            self.update(self._average_model, pl_module)
            self._latest_update_step = trainer.global_step

    @torch.no_grad()
    def update(self, average: AveragedModel, model: nn.Module) -> None:
        """Takes the weights and buffers of a model, on the same device, into their average."""
        if self._n is None:  # at the start, or resumed
            self._n = int(average.n_averaged)
        n = self._n + 1  # with this one
        decay = 0.0 if n == 1 else torch.tensor(min(self.decay, n / (n + 9)), dtype=torch.float32).item()
        averages, currents = [], []
        networks = ([*network.parameters(), *network.buffers()] for network in (average.module, model))
        for mean, current in zip(*networks, strict=True):
            if mean.is_floating_point():
                averages.append(mean)
                currents.append(current)
            else:
                mean.copy_(current)
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, torch._foreach_mul(currents, 1 - decay))
        average.n_averaged.add_(1)
        self._n = n
