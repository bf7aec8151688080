"""Stage 1: a 3D masked auto-encoder learns pelvic anatomy from unlabelled MRI."""

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from poddistill.nets.masked_autoencoder import MaskedAutoEncoder3D
from poddistill.pod.clips_in_batches import refuse_clips
from poddistill.training.optimisation import Optimisation, configure
from poddistill.training.scores import CaseMean


class MaskedPretraining(pl.LightningModule):
    """What pre-training of MRI alone and with clips have in common: the validation, and the optimiser.

    ``val/loss`` is the mean over all validation cases, each counted once and under a mask of its own, so that it is
    the same at every epoch, for any batch size and any number of processes, and can select.

    Args:
        network: The masked auto-encoder of MRI volumes (B, 1, D, H, W).
        optimisation: Makes optimiser and learning-rate schedule.
    """

    def __init__(self, network: MaskedAutoEncoder3D, optimisation: Optimisation) -> None:
        super().__init__()
        self.network = network
        self.optimisation = optimisation
        self.case_loss = CaseMean()

    def on_validation_epoch_start(self) -> None:
        """Forgets the cases of the last pass."""
        self.case_loss.reset()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Collects the losses of a batch of volumes under the masks that belong to its cases."""
        output = self.network(batch["image"], noise=self.network.case_noise(batch["index"]))
        self.case_loss.update(batch["index"], output.case_loss)

    def on_validation_epoch_end(self) -> None:
        """Logs the mean over the cases of all processes."""
        # Nothing is left to synchronise; sync_dist only silences the warning.
        self.log("val/loss", self.case_loss.compute(), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Returns the optimiser and its schedule, stepped every optimiser step."""
        return configure(self.optimisation, self)


class MAEPretrain(MaskedPretraining):
    """Pre-trains an encoder of MRI volumes (B, 1, D, H, W) by filling in masked patches.

    He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, in 3D; Zhang et al., ISBI 2023
    (arXiv 2307.02000) pre-train their MRI student so.

    Logs ``train/loss`` and ``val/loss``: the mean squared error over masked voxels.

    Args:
        network: The masked auto-encoder; its ``encoder`` is what `StudentKD` starts from.
        optimisation: Makes optimiser and learning-rate schedule.
    """

    def __init__(self, network: MaskedAutoEncoder3D, optimisation: Optimisation) -> None:
        super().__init__(network, optimisation)
        self.save_hyperparameters()

    def on_fit_start(self) -> None:
        """Makes sure that batches hold volumes alone."""
        refuse_clips(self.trainer.datamodule)  # type: ignore[attr-defined]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Returns the loss of a batch under random masks."""
        loss = self.network(batch["image"]).loss
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["image"]), sync_dist=True)
        return loss
