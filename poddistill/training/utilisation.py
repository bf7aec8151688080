"""How much of the hardware a training uses: its floating-point operations (FLOPs) a second and the device's peak."""

import math
import time
from contextlib import ExitStack
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.data import extract_batch_size
from torch.utils.flop_counter import FlopCounterMode

from data_modules.errors import InputError

# Peak rates of dense products in TFLOP/s, by words of the device's name, the more particular names first; "half" is
# bf16 and fp16 with sums in fp32. Each line is from NVIDIA's data sheet of that device; where a sheet only prints rates
# for sparse matrices, half of them.
_PEAKS: dict[str, dict[str, float]] = {
    "H200 NVL": {"half": 835.5, "tf32": 417.5, "float32": 60.0},
    "H200": {"half": 989.4, "tf32": 494.7, "float32": 66.9},
    "GH200": {"half": 989.4, "tf32": 494.7, "float32": 66.9},
    "H100 NVL": {"half": 835.5, "tf32": 417.5, "float32": 60.0},
    "H100 PCIe": {"half": 756.0, "tf32": 378.0, "float32": 51.2},
    "H100": {"half": 989.4, "tf32": 494.7, "float32": 66.9},  # SXM
    "A100": {"half": 312.0, "tf32": 156.0, "float32": 19.5},
    "A40": {"half": 149.7, "tf32": 74.8, "float32": 37.4},
    "L40S": {"half": 362.0, "tf32": 183.0, "float32": 91.6},
    "L40": {"half": 181.0, "tf32": 90.5, "float32": 90.5},
    "V100 PCIE": {"float16": 112.0, "float32": 14.0},
    "V100": {"float16": 125.0, "float32": 15.7},  # SXM2
    "T4": {"float16": 65.0, "float32": 8.1},
}
_DTYPES = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}
# The step that is counted, and those in which torch.compile and cuDNN still choose their kernels.
UNTIMED_STEPS = 4


def _attention(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], *_: Any, **__: Any) -> int:
    """FLOPs of attention forward, from the shapes (B, heads, Q, C), (B, heads, K, C) and (B, heads, K, C')."""
    return 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])


def _attention_backward(
    _gradient: Any, q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], *_: Any, **__: Any
) -> int:
    """Twice the forward; PyTorch's own formula adds the scores that the kernel computes again."""
    return 2 * _attention(q, k, v)


_ATEN = torch.ops.aten
_FORMULAS = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,  # PyTorch has no formula for it
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _ATEN._scaled_dot_product_flash_attention_backward: _attention_backward,
    _ATEN._scaled_dot_product_efficient_attention_backward: _attention_backward,
    _ATEN._scaled_dot_product_cudnn_attention_backward: _attention_backward,
}


class ModelFLOPs(FlopCounterMode):
    """Counts the FLOPs that a model needs for what is run within the context; ``get_total_flops`` tells them.

    Products of matrices, attention and convolutions count, forward and backward, a multiplication and an addition as
    two; what is done to each element does not. The count belongs to the model, not to the way it is computed
    (Chowdhery et al., "PaLM", 2022, appendix B): what is computed a second time on the way back, by activation
    checkpointing or inside an attention kernel, counts once. A second derivative (``create_graph``) would be taken for
    such.
    """

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=_FORMULAS)

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        # Gradients are computed with gradients off, activations that were not kept with gradients on.
        recomputed = self.mod_tracker.is_bw and torch.is_grad_enabled()
        return out if recomputed else super()._count_flops(func_packet, out, args, kwargs)


def known_peak(name: str, dtype: torch.dtype) -> float | None:
    """Returns the peak rate of dense products, in TFLOP/s, of a device by its name, or None where it is not known.

    float32 is taken for TF32 where ``torch.set_float32_matmul_precision`` allows it and the device has it.
    """
    words = set(name.replace("-", " ").split())
    if "MIG" in words:  # a part of a device
        return None
    rates = next((rates for device, rates in _PEAKS.items() if words.issuperset(device.split())), {})
    kind = str(dtype).removeprefix("torch.")
    if dtype in (torch.bfloat16, torch.float16):
        return rates.get(kind, rates.get("half"))
    if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        return rates.get("tf32", rates.get(kind))
    return rates.get(kind)


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Returns the rate of one large product of matrices on a device, in TFLOP/s, best of five.

    It draws from a generator of its own, so a training that follows is the same as without it.
    """
    side = 1024 if device.type == "cpu" else 8192
    generator = torch.Generator(device).manual_seed(0)
    factors = torch.rand(2, side, side, device=device, generator=generator).to(dtype)
    times = []
    for _ in range(6):  # the first warms up
        _synchronise(device)
        start = time.perf_counter()
        torch.mm(factors[0], factors[1])
        _synchronise(device)
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times[1:]) / 1e12


def peak(device: torch.device, precision: str) -> float:
    """Returns a device's peak rate in TFLOP/s in a precision of Lightning's: the data sheet's, else as measured."""
    dtype = _DTYPES.get(precision.partition("-")[0], torch.float32)
    known = known_peak(torch.cuda.get_device_name(device), dtype) if device.type == "cuda" else None
    return known or measured_peak(device, dtype)


class Utilisation(Callback):
    """Logs how fast a training runs, every ``trainer.log_every_n_steps`` steps, over the steps since the last time.

    ``train/mfu``: model FLOPs utilisation, the part in [0, 1] of the device's peak rate that the model's FLOPs make up
    (`ModelFLOPs`), and ``train/tflops``, their rate in TFLOP/s; both a device, the mean over processes.
    ``train/samples_per_s``: samples a second, the sum over processes. The time is that of training, waiting for data
    included, validation and checkpoints left out. A batch of several kinds, a dict of batches, has the samples of all.

    The FLOPs are counted in the first step as it runs, without torch.compile, and taken to grow with the samples. Where
    a later batch mixes the kinds in another ratio they do not, so ``train/mfu`` and ``train/tflops`` are nan there.
    Training with this callback gives the same weights as without. It waits for the device only where it reads
    the clock: at the steps that log, and at both ends of an epoch.

    Args:
        peak_tflops: The device's peak rate in TFLOP/s, above 0; None: that of its data sheet for ``trainer.precision``,
            or for a device whose sheet is not known here, such as a CPU, the rate of one large product of matrices.

    Raises:
        InputError: `peak_tflops` is not above 0.
    """

    def __init__(self, peak_tflops: float | None = None) -> None:
        if peak_tflops is not None and not peak_tflops > 0:
            raise InputError(f"peak_tflops is {peak_tflops}: give the device's peak in TFLOP/s, above 0, or null")
        self.peak_tflops = peak_tflops
        self._counting = ExitStack()
        self._since: float | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finds the peak."""
        self._peak = self.peak_tflops or peak(trainer.strategy.root_device, str(trainer.precision))
        self._flops_per_sample: float | None = None
        self._untimed = UNTIMED_STEPS
        self._logged_step = trainer.global_step
        self._elapsed, self._samples, self._same_mix = 0.0, 0, True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Goes on timing: the wait for the first batch counts."""
        self._start(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Counts the FLOPs of the first step; goes on timing after a validation."""
        if self._flops_per_sample is None:
            self._counting.enter_context(torch.compiler.set_stance("force_eager"))
            self._counter = self._counting.enter_context(ModelFLOPs())
        self._start(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs where it is time to."""
        sizes = _sizes(batch)
        samples = sum(sizes)
        mix = [size / samples for size in sizes]
        if self._flops_per_sample is None:
            self._counting.close()
            self._flops_per_sample = self._counter.get_total_flops() / samples
            self._mix = mix
        if self._untimed:
            self._untimed -= 1
            self._logged_step = trainer.global_step
            self._start(trainer)
            return
        self._samples += samples
        self._same_mix &= mix == self._mix
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and step % every == 0 and step != self._logged_step:  # else a step that only accumulates gradients
            self._logged_step = step
            self._stop(trainer)
            self._log(pl_module)
            self._start(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops timing."""
        self._stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops timing."""
        self._stop(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stops counting."""
        self._counting.close()

    def _start(self, trainer: pl.Trainer) -> None:
        if self._since is None and not self._untimed:
            _synchronise(trainer.strategy.root_device)
            self._since = time.perf_counter()

    def _stop(self, trainer: pl.Trainer) -> None:
        if self._since is not None:
            _synchronise(trainer.strategy.root_device)
            self._elapsed += time.perf_counter() - self._since
            self._since = None

    def _log(self, module: pl.LightningModule) -> None:
        rate = self._samples / self._elapsed
        # Lightning would log the last value again where none is given.
        flops_per_sample = self._flops_per_sample if self._same_mix and self._flops_per_sample else math.nan
        tflops = rate * flops_per_sample / 1e12
        module.log_dict({"train/tflops": tflops, "train/mfu": tflops / self._peak}, sync_dist=True)
        module.log("train/samples_per_s", rate, sync_dist=True, reduce_fx="sum")
        self._elapsed, self._samples, self._same_mix = 0.0, 0, True


def _sizes(batch: Any) -> list[int]:
    """Samples of each kind in a batch: one kind, unless it is a dict of batches."""
    parts = [part for part in batch.values() if isinstance(part, dict)] if isinstance(batch, dict) else []
    return [extract_batch_size(part) for part in parts or [batch]]


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
