"""Progress as plain lines: readable side by side, in a log file and under SLURM."""

import sys
import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class ProgressLines(Callback):
    """Prints a line now and then: stage, epoch, the last metrics, time left.

    Progress bars of stages that run side by side overwrite each other, and fill the log of a cluster job with control
    characters; lines do neither.

    Args:
        name: What to call the stage at the line's head.
        every_s: The least time between two lines, in seconds. The first and the last epoch are always told.
    """

    def __init__(self, name: str, every_s: float = 10.0) -> None:
        self.name = name
        self.every_s = every_s
        self._start = self._last = 0.0
        self._first_epoch = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says how much there is to do."""
        self._start, self._last, self._first_epoch = time.monotonic(), 0.0, trainer.current_epoch
        resumed = f", resumed after epoch {trainer.current_epoch}" if trainer.current_epoch else ""
        parameters = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        self._print(
            trainer,
            f"{trainer.max_epochs} epochs of {trainer.num_training_batches} steps, {parameters:,} parameters, "
            f"{trainer.world_size} process(es){resumed}",
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the line where it is due."""
        now = time.monotonic()
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        if now - self._last < self.every_s and done != total:
            return
        self._last = now
        wanted = ("train/loss", "val/loss", "val/auroc")
        metrics = "  ".join(
            f"{key} {float(trainer.callback_metrics[key]):.4f}" for key in wanted if key in trainer.callback_metrics
        )
        left = (now - self._start) / max(done - self._first_epoch, 1) * max(total - done, 0)
        self._print(trainer, f"epoch {done}/{total}  {metrics}  {left // 60:.0f}:{left % 60:02.0f} left")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the test scores."""
        scores = {key: value for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
        self._print(trainer, "  ".join(f"{key} {float(value):.4f}" for key, value in scores.items()))

    def _print(self, trainer: pl.Trainer, text: str) -> None:
        if trainer.is_global_zero and text:
            sys.stdout.write(f"{self.name:<16} {text}\n")
            sys.stdout.flush()
