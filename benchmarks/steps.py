"""Training steps of a bare network on one batch, as `mae_step.py`, `r2plus1d.py` and `mae_probe.py` time them."""

import time
from collections.abc import Callable
from typing import Any

import torch
from timing import on_cpu_only
from torch import Tensor, nn

from poddistill.training.utilisation import ModelFLOPs

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16

on_cpu_only()


class Training:
    """A network in training on a CPU; calling it takes steps and returns the seconds of one.

    Args:
        network: What is trained.
        images: float32 (B, 1, D, H, W) or (B, 1, T, H, W), the batch of every step.
        criterion: The scalar loss of what the network returns, computed outside of autocast.
        dtype: bfloat16 for autocast, or float32.
        matmul: As of `torch.set_float32_matmul_precision`.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        criterion: Callable[[Any], Tensor],
        dtype: torch.dtype = FLOAT32,
        matmul: str = "highest",
    ) -> None:
        self.network, self.images, self.criterion = network.train(), images, criterion
        self.dtype, self.matmul = dtype, matmul
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def __call__(self, steps: int) -> float:
        """Takes steps."""
        torch.set_float32_matmul_precision(self.matmul)
        start = time.perf_counter()
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            self.loss().backward()
            self.optimizer.step()
        return (time.perf_counter() - start) / steps

    def loss(self) -> Tensor:
        """Returns the loss of the batch."""
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != FLOAT32):
            answer = self.network(self.images)
        return self.criterion(answer)

    def flops(self) -> int:
        """Returns the model's FLOPs of a step."""
        with ModelFLOPs() as counter:
            self.loss().backward()
        return counter.get_total_flops()
