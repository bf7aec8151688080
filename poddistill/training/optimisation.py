"""How every stage is optimised: AdamW, linear warm-up, cosine decay, layer-wise learning rates."""

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

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
            f"trainer.max_epochs is {epochs}: the schedule of the learning rate needs their number; give at least 1"
        )
    steps = max(1, round(int(module.trainer.estimated_stepping_batches) / epochs))
    optimizer, schedule = optimisation(module, steps, epochs)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@runtime_checkable
class Layered(Protocol):
    """An encoder that knows how deep each of its parameters lies.

    Attributes:
        n_layers: The layer of whatever follows the encoder, such as a head; counted from 0 at the input.
    """

    n_layers: int

    def layer_of(self, name: str) -> int:
        """Returns the layer, 0 to `n_layers`, of a parameter by its name in the encoder."""
        ...


class AdamWCosine:
    """Makes the optimiser and the learning-rate schedule of a module.

    The rate of a parameter in layer l of an encoder, at step k counted from 0, is

        lr * layer_decay^(n_layers - l) * f(k)

    with f(k) = (k + 1) / (W + 1) in the W warm-up steps, then r + (1 - r) (1 + cos(pi (k - W) / (K - W))) / 2
    until the last step K, r being `min_lr_ratio`. Parameters outside a `Layered` submodule, such as a head,
    have the full rate. Layer-wise rates are those of BEiT (Bao et al., ICLR 2022) and MAE. Vectors (biases,
    gains of norms, class and mask tokens) have no weight decay.

    Args:
        lr: Peak learning rate; above 0.
        weight_decay: AdamW's decay of matrices and kernels; at least 0.
        warmup_epochs: Length of the warm-up; may be a fraction. A training shorter than that ends within the
            warm-up.
        min_lr_ratio: Part of the rate that remains at the end, in [0, 1].
        betas: AdamW's decay rates of the moments, in [0, 1).
        layer_decay: Factor of the learning rate from a layer to the one before it, in (0, 1]; 1: none.

    Raises:
        InputError: An option is out of range.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup_epochs: float = 5.0,
        min_lr_ratio: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        layer_decay: float = 1.0,
    ) -> None:
        if not lr > 0:
            raise InputError(f"lr is {lr}: give a number above 0")
        for name, value in (("weight_decay", weight_decay), ("warmup_epochs", warmup_epochs)):
            if not value >= 0:
                raise InputError(f"{name} is {value}: give at least 0")
        if not 0 <= min_lr_ratio <= 1:
            raise InputError(f"min_lr_ratio is {min_lr_ratio}: give a part in [0, 1]")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise InputError(f"betas is {betas}: give two numbers in [0, 1)")
        if not 0 < layer_decay <= 1:
            raise InputError(f"layer_decay is {layer_decay}: give a factor in (0, 1]")
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup_epochs = warmup_epochs
        self.min_lr_ratio = min_lr_ratio
        self.betas = (betas[0], betas[1])
        self.layer_decay = layer_decay

    def __call__(self, module: nn.Module, steps_per_epoch: int, epochs: int) -> tuple[AdamW, LambdaLR]:
        """Sets up the training of a module.

        Args:
            module: What is trained; frozen parameters are left out.
            steps_per_epoch: Optimiser steps an epoch.
            epochs: Epochs of the whole training.

        Returns:
            The optimiser, whose first group has the highest learning rate, and its schedule, to be stepped
            after every optimiser step.

        Raises:
            InputError: Nothing is trainable, or `layer_decay` is below 1 and no submodule is `Layered`.
        """
        groups = self.parameter_groups(module)
        devices = {parameter.device.type for group in groups for parameter in group["params"]}
        # One kernel for a whole step instead of a dozen a list of parameters; on a CPU several times faster.
        optimizer = AdamW(groups, lr=self.lr, betas=self.betas, fused=True if devices <= {"cpu", "cuda"} else None)
        # A fused step offers to divide out fp16's loss scale by itself, after which nothing could be clipped: Lightning
        # refuses to, in bf16 as well. Without this mark the scale is divided out before gradients are clipped, as for
        # any other optimiser.
        optimizer._step_supports_amp_scaling = False
        warmup, total = round(self.warmup_epochs * steps_per_epoch), steps_per_epoch * epochs
        return optimizer, LambdaLR(optimizer, lambda step: self.lr_factor(step, warmup, total))

    def parameter_groups(self, module: nn.Module) -> list[dict]:
        """Sorts the trainable parameters by learning rate and weight decay.

        Returns:
            Groups with keys `params`, `lr`, `weight_decay` and `name`, the highest learning rate first.

        Raises:
            InputError: As in `__call__`.
        """
        layered = {name: part for name, part in module.named_modules() if isinstance(part, Layered)}
        if self.layer_decay < 1 and not layered:
            raise InputError(
                f"layer_decay is {self.layer_decay}, but {type(module).__name__} has no layered encoder: set it to 1"
            )
        groups: dict[tuple[int, bool], dict] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            below = self._layers_below_top(name, layered) if self.layer_decay < 1 else 0
            decays = parameter.ndim > 1
            group = {
                "params": [],
                "lr": self.lr * self.layer_decay**below,
                "weight_decay": self.weight_decay if decays else 0.0,
                "name": f"top-{below}-{'decay' if decays else 'no-decay'}",
            }
            groups.setdefault((below, not decays), group)["params"].append(parameter)
        if not groups:
            raise InputError(f"{type(module).__name__} has no trainable parameter: unfreeze some of it")
        return [groups[key] for key in sorted(groups)]

    def lr_factor(self, step: int, warmup: int, total: int) -> float:
        """Returns f(step), the part of the peak rate, for a warm-up and a training of so many steps."""
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min((step - warmup) / max(total - warmup, 1), 1.0)
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))

    @staticmethod
    def _layers_below_top(name: str, layered: dict[str, Layered]) -> int:
        for prefix, part in reversed(layered.items()):  # the innermost first
            start = f"{prefix}." if prefix else ""
            if name.startswith(start):
                return part.n_layers - part.layer_of(name.removeprefix(start))
        return 0
