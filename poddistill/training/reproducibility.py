"""Random numbers that depend on seed, epoch and process alone, so that a resumed run repeats an uninterrupted one."""

import os

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class EpochSeed(Callback):
    """Seeds the global generators anew at every epoch's start from (seed, epoch, rank).

    Masks, augmentation, dropout and pairing draw from PyTorch's global generators. Their state is not part of a
    checkpoint; with this callback it need not be, since no epoch depends on the draws of an earlier one.
    """

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reseeds PyTorch (every device), NumPy and Python."""
        run_seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        sequence = np.random.SeedSequence([run_seed, trainer.current_epoch, trainer.global_rank])
        # The seed of the run itself stays what it was: seed_everything would write the epoch's into the environment.
        pl.seed_everything(int(sequence.generate_state(1)[0]), verbose=False)
        os.environ["PL_GLOBAL_SEED"] = str(run_seed)
