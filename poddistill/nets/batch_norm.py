"""Batch normalisation that is fast for few channels, too."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

LEAST_WIDTH, SIMD = 192, 32
NARROW = 64
"""Channels below which PyTorch's kernel is slow on a CPU, unless they are a multiple of 16."""


class BatchNorm3d(nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d`, computed otherwise on a CPU where channels are few and come last in memory.

    PyTorch's kernel takes the channels of a voxel at a time, so that 6 of them leave most of a vector register empty.
    Here several voxels are taken for one of as many times the channels, and their statistics are put together. The
    result differs by rounding alone. (Ioffe and Szegedy, ICML 2015; how it is computed is ours.)

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (B, C, T, H, W) to the same shape, type and layout."""
        n, voxels = self.num_features, x.numel() // x.shape[1]
        copies = _copies(n, voxels)
        narrow = n < NARROW and n % 16 and x.device.type == "cpu" and voxels > copies
        last = x.is_contiguous(memory_format=torch.channels_last_3d)
        if not narrow or not last or torch.compiler.is_compiling():
            return super().forward(x)
        running: Any = (self.running_mean, self.running_var)
        if not self.training:
            mean, variance, weight, bias = (vector.repeat(copies) for vector in (*running, self.weight, self.bias))
            wide = functional.batch_norm(_widened(x, copies), mean, variance, weight, bias, eps=self.eps)
            return wide.view(len(x), *x.shape[2:], n).permute(0, 4, 1, 2, 3)
        y, *moments = _Training.apply(x, self.weight, self.bias, self.eps, copies)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            for average, value, factor in zip(running, moments, (1, voxels / (voxels - 1)), strict=True):
                average.lerp_(factor * value, self.momentum)
        return y


class _Training(torch.autograd.Function):
    """y = (x - m) / sqrt(v + eps) * weight + bias, with the mean m and the biased variance v of each channel.

    Maps x (B, C, T, H, W), weight and bias (C,) to y like x, m and v (C,).
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, eps: float, copies: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = _widened(x, copies)
        rows, columns = wide.shape
        # Asked for running statistics with a momentum of 1, for it returns those of the batch in bfloat16 only.
        means, variances = weight.new_zeros(columns), weight.new_zeros(columns)
        torch.batch_norm_update_stats(wide, means, variances, 1.0)
        means, variances = (vector.view(copies, -1) for vector in (means, variances))
        mean = means.mean(0)
        variance = (variances * ((rows - 1) / rows) + (means - mean) ** 2).mean(0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.options = eps, copies  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(mean, variance)
        return _normalise(x, [vector.repeat(copies) for vector in (weight, bias, mean, variance)], eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, variance = ctx.saved_tensors
        eps, copies = ctx.options
        scale = (variance + eps).rsqrt()
        vectors = [vector.repeat(copies) for vector in (weight, mean, variance, mean, scale)]
        # As if the moments were given: the gradient by x lacks what it owes to them, the other two are right.
        wide_grad = _widened(grad.contiguous(memory_format=torch.channels_last_3d), copies)
        by_x, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            wide_grad, _widened(x, copies), *vectors, False, eps, [True, True, True]
        )
        by_weight, by_bias = (vector.view(copies, -1).sum(0) for vector in (by_weight, by_bias))
        owed = [-weight * scale * total * len(mean) / x.numel() for total in (by_weight, by_bias)]
        total = _normalise(x, [vector.repeat(copies) for vector in (*owed, mean, variance)], eps)
        _widened(total, copies).add_(by_x)
        return total, by_weight, by_bias, None, None


def _normalise(x: Tensor, vectors: list[Tensor], eps: float) -> Tensor:
    """Normalises x (B, C, T, H, W) with weight, bias, mean and variance, each repeated for as many voxels as a row has.

    The result is no view, so that an activation may change it in place.
    """
    y = torch.empty_like(x, memory_format=torch.channels_last_3d)
    copies = len(vectors[0]) // x.shape[1]
    nothing = [vectors[0].new_empty(0) for _ in range(2)]
    torch.ops.aten.native_batch_norm.out(
        _widened(x, copies),
        *vectors,
        False,
        0.0,
        eps,
        out=_widened(y, copies),
        save_mean=nothing[0],
        save_invstd=nothing[1],
    )
    return y


def _widened(x: Tensor, copies: int) -> Tensor:
    """Views (B, C, T, H, W), channels last, as (B T H W / copies, copies C)."""
    return x.permute(0, 2, 3, 4, 1).reshape(-1, copies * x.shape[1])


def _copies(channels: int, voxels: int) -> int:
    """How many voxels to take for one, a divisor of their number: full registers, and rows wide enough."""
    copies = math.gcd(math.lcm(channels, SIMD) // channels, voxels)
    while copies * channels < LEAST_WIDTH and voxels % (2 * copies) == 0:
        copies *= 2
    return copies
