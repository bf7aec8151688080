"""Averages of the weights over the steps of a training."""

import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


class WeightEMA(WeightAveraging):
    """Validates, selects and saves an exponential moving average of the weights and buffers, w, instead of the last.

        ema_n = d_n ema_(n-1) + (1 - d_n) w_n,    d_n = min(decay, n / (n + 9)),    ema_1 = w_1

    n counts the optimiser steps. With a fixed d the average would still hold d^n of the first step's weights: a
    training of few steps, as with few labels or many processes, would be judged by how it started. n / (n + 9) lets it
    hold about the last tenth of the steps until `decay` allows more; it is that of TensorFlow's
    ExponentialMovingAverage with ``num_updates``.

    Args:
        decay: The largest d, in (0, 1).

    Raises:
        ValueError: It is out of range.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay is {decay}: give a part in (0, 1)")
        super().__init__(avg_fn=self._average)
        self.decay = decay

    def _average(self, average: Tensor, current: Tensor, n_averaged: Tensor) -> Tensor:
        n = n_averaged + 1  # with this one
        decay = torch.clamp(n / (n + 9), max=self.decay)  # stays on its device: no waiting for it
        return average * decay + current * (1 - decay)
