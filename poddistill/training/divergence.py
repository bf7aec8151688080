"""What stops a training that has come apart."""

import itertools

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from data_modules.errors import InputError


class FiniteWeights(Callback):
    """Ends a fit whose weights are no longer finite, before they are scored or kept.

    A loss of nan or infinity makes every weight nan in one step; an activation, the running statistics of a batch
    normalisation, for good. Both are looked at before each validation, and ``last.ckpt`` stays that of the validation
    before.

    Raises:
        InputError: A weight, or what is kept beside the weights, is nan or infinite.
    """

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Looks at every weight and buffer."""
        for name, state in itertools.chain(pl_module.named_parameters(), pl_module.named_buffers()):
            if not state.isfinite().all():
                exact = "" if trainer.precision == "32-true" else f", or set precision ({trainer.precision}) to 32-true"
                raise InputError(
                    f"training came apart by epoch {trainer.current_epoch + 1}: {name} is not finite; lower "
                    f"optimisation.lr{exact}"
                )
