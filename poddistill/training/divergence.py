"""What stops a training that has come apart."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from data_modules.errors import InputError


class FiniteWeights(Callback):
    """Ends a fit whose weights are no longer finite, before they are scored or kept.

    A loss of nan or infinity makes every weight nan in one step. AUROC does not tell: of nan it is about 0.5. The
    weights are looked at before each validation, and ``last.ckpt`` stays that of the validation before.

    Raises:
        InputError: A weight is nan or infinite.
    """

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Looks at every weight."""
        for name, weight in pl_module.named_parameters():
            if not weight.isfinite().all():
                exact = "" if trainer.precision == "32-true" else f", or set precision ({trainer.precision}) to 32-true"
                raise InputError(
                    f"training came apart by epoch {trainer.current_epoch + 1}: {name} is not finite; lower "
                    f"optimisation.lr{exact}"
                )
