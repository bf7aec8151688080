"""Stage 2: a ResNet(2+1)D learns POD obliteration from sliding-sign ultrasound clips."""

from pathlib import Path

from torch import Tensor

from poddistill.losses.labels import LabelLoss
from poddistill.nets.r2plus1d import R2Plus1D
from poddistill.pod.detector import Batch, Detector
from poddistill.training.optimisation import Optimisation


class TeacherTVUS(Detector):
    """Classifies TVUS clips (B, 1, T, H, W): a negative sliding sign is label 1, POD obliterated.

    Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018; as a teacher of POD
    obliteration: Zhang et al., ISBI 2023 (arXiv 2307.02000). Once trained it is frozen.

    Logs ``train/loss``, ``val/loss``, ``val/auroc``, ``test/loss`` and ``test/auroc``.

    Args:
        network: Clips to one logit.
        label_loss: Loss of logits (B,) against labels (B,).
        optimisation: Makes optimiser and learning-rate schedule.
        kinetics: Path of a state dict in torchvision's format (``r2plus1d_18``, Kinetics-400) to start from, or None.
    """

    def __init__(
        self,
        network: R2Plus1D,
        label_loss: LabelLoss,
        optimisation: Optimisation,
        kinetics: str | None = None,
    ) -> None:
        super().__init__(label_loss, optimisation)
        self.save_hyperparameters()
        self.network = network
        self.kinetics = kinetics

    def setup(self, stage: str) -> None:
        """Loads the Kinetics weights before training; a checkpoint that is resumed from replaces them."""
        if stage == "fit" and self.kinetics:
            self.network.load_kinetics(Path(self.kinetics))

    def forward(self, clip: Tensor) -> Tensor:
        """Returns the logits (B,) of clips (B, 1, T, H, W)."""
        return self.network(clip)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch."""
        loss = self.label_loss(self(batch["image"]), batch["label"])
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["label"]), sync_dist=True)
        return loss
