"""Stage 1: a 3D masked auto-encoder learns pelvic anatomy from unlabelled MRI."""

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from poddistill.nets.masked_autoencoder import MaskedAutoEncoder3D
from poddistill.pod.clips_in_batches import refuse_clips
from poddistill.training.optimisation import Optimisation, configure


class MAEPretrain(pl.LightningModule):
    """Pre-trains an encoder of MRI volumes (B, 1, D, H, W) by filling in masked patches.

    He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, in 3D; Zhang et al., ISBI 2023
    (arXiv 2307.02000) pre-train their MRI student so.

    Logs ``train/loss`` and ``val/loss``: the mean squared error over masked voxels. Validation masks belong to the
    cases, the same at every epoch and for any number of processes, so that the loss can select.

    Args:
        network: The masked auto-encoder; its ``encoder`` is what `StudentKD` starts from.
        optimisation: Makes optimiser and learning-rate schedule.
    """

    def __init__(self, network: MaskedAutoEncoder3D, optimisation: Optimisation) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = network
        self.optimisation = optimisation

    def on_fit_start(self) -> None:
        """Makes sure that batches hold volumes alone."""
        refuse_clips(self.trainer.datamodule)  # type: ignore[attr-defined]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Returns the loss of a batch under random masks."""
        loss = self.network(batch["image"]).loss
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["image"]), sync_dist=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Logs the loss of a batch under the masks that belong to its cases."""
        loss = self.network(batch["image"], noise=self.network.case_noise(batch["index"])).loss
        self.log("val/loss", loss, batch_size=len(batch["image"]), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Returns the optimiser and its schedule, stepped every optimiser step."""
        return configure(self.optimisation, self)
