"""Compiled training: torch.compile turns a network into a few large kernels, for a wait at the start."""

import statistics
import sys
import time
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn

from data_modules.errors import InputError

COLD_STEPS = WARM_STEPS = 4
Mode = Literal["default", "reduce-overhead", "max-autotune"]


def compile_networks(stage: nn.Module, mode: Mode, device: torch.device) -> None:
    """Marks every network of a stage to be compiled in place when it is next called.

    A transfer, which may have weights, too, is bookkeeping over a few numbers, and would be compiled in many pieces.

    Args:
        stage: A LightningModule, whose own training step stays as it is.
        mode: As of `Compilation`.
        device: Where the stage is going to run.

    Raises:
        InputError: Nothing can be compiled there.
    """
    from torch._inductor import list_mode_options  # takes a second, which runs that do not compile need not wait

    _check_compiler(device, mode)
    for name, part in stage.named_children():
        if name != "transfer" and any(True for _ in part.parameters()):
            part.compile(options={**list_mode_options(mode), "fallback_random": True})


class Compilation(Callback):
    """Compiles the networks of a stage in place for its fit, and tells how long that took.

    Validation and test run eagerly, for each of their batch sizes would be compiled anew. Weights keep their names, so
    a checkpoint goes from a compiled run to an eager one and back. Random numbers (masks, dropout) are those of the
    eager run, so both see the same masks; losses agree up to rounding. Networks are compiled when they are first
    called, which is in the second step where `Utilisation` counts the first.

    Args:
        mode: torch.compile's mode: ``default``; ``reduce-overhead``, which also replays a step's kernels as one CUDA
            graph, for small networks that wait for Python, for more memory; ``max-autotune``, which also times several
            kernels for each product, for minutes more at the start. None: nothing is compiled.

    Raises:
        InputError: Nothing can be compiled here; or gradients of several batches are accumulated, and the mode uses
            CUDA graphs.
    """

    def __init__(self, mode: Mode | None = None) -> None:
        self.mode = mode
        self._times: list[float] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Marks every part that has weights to be compiled, before a fit."""
        if self.mode is None or stage != "fit":
            return
        device = trainer.strategy.root_device
        if self.mode != "default" and device.type == "cuda" and trainer.accumulate_grad_batches > 1:
            # The graph of a batch would write its gradients over those of the one before (PyTorch's issue 169545).
            raise InputError(
                f"compile {self.mode} uses CUDA graphs, which cannot accumulate the gradients of "
                f"{trainer.accumulate_grad_batches} batches: set compile to default, or accumulate_grad_batches to 1"
            )
        compile_networks(pl_module, self.mode, device)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the compiled networks for those that they were made from."""
        if self.mode is not None:
            torch.compiler.set_stance("force_eager")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Goes back to the compiled networks."""
        if self.mode is not None:
            torch.compiler.set_stance("default")

    on_test_start, on_test_end = on_validation_start, on_validation_end

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Goes back to them for a later fit of this process."""
        self.on_validation_end(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the clock of the first steps."""
        if self.mode is not None:
            torch.compiler.cudagraph_mark_step_begin()
            self._start = self._now(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tells, once it is known, how much longer the first steps took than later ones."""
        if self.mode is None or len(self._times) == COLD_STEPS + WARM_STEPS:
            return
        self._times.append(self._now(trainer) - self._start)
        if len(self._times) == COLD_STEPS + WARM_STEPS and trainer.is_global_zero:
            later = statistics.median(self._times[COLD_STEPS:])
            wait = sum(self._times[:COLD_STEPS]) - COLD_STEPS * later
            sys.stdout.write(
                f"{'compile':<16} {self.mode}: the first {COLD_STEPS} steps took {wait:.1f} s more than later ones "
                f"of {later:.3f} s\n"
            )
            sys.stdout.flush()

    def _now(self, trainer: pl.Trainer) -> float:
        if trainer.strategy.root_device.type == "cuda" and len(self._times) < COLD_STEPS + WARM_STEPS:
            torch.cuda.synchronize(trainer.strategy.root_device)
        return time.perf_counter()


def _check_compiler(device: torch.device, mode: str) -> None:
    """Compiles next to nothing, for a compiler that is missing would be told of in many lines, in the first step."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:
        # torch.compile answers a missing compiler with almost any exception
        needs = "a C++ compiler" if device.type == "cpu" else "a C compiler and Triton"
        raise InputError(
            f"compile is {mode}, but torch.compile does not work here ({type(error).__name__}): install {needs} "
            "(such as the package g++), or set compile to null"
        ) from error
