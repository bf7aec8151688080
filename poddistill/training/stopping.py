"""What ends a training before its last epoch."""

from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning import callbacks


class EarlyStopping(callbacks.EarlyStopping):
    """Ends a fit after so many validations without a better score.

    A fit that had ended so and is resumed, since its test was interrupted, ends at once, unless it is given more
    patience; Lightning's own trains on, with the patience that it had.

    Args:
        monitor: The validation metric that is looked at.
        mode: ``"max"`` or ``"min"``.
        patience: Validations without a better score.
    """

    def __init__(self, monitor: str, mode: Literal["max", "min"], patience: int = 3) -> None:
        # at the end of an epoch it would be after the validation, and so after last.ckpt is written
        super().__init__(monitor=monitor, mode=mode, patience=patience, check_on_train_epoch_end=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back how long there was no better score."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends a resumed fit that had ended; it resumes at the end of its last epoch."""
        if self.stopped_epoch > 0 and self.wait_count >= self.patience:
            trainer.should_stop = True
