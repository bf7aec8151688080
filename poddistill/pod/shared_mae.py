"""Stage 1 for both modalities: masked auto-encoders of MRI volumes and ultrasound clips, with blocks in common."""

from torch import Tensor

from data_modules.errors import InputError
from poddistill.nets.masked_autoencoder import MaskedAutoEncoder3D
from poddistill.nets.shared import share_blocks
from poddistill.pod.clips_in_batches import batched_clips
from poddistill.pod.mae_pretrain import MaskedPretraining
from poddistill.training.optimisation import Optimisation

Batches = dict[str, dict[str, Tensor]]
"""A batch of volumes, ``mri``, and one of clips, ``tvus``."""


class SharedMAEPretrain(MaskedPretraining):
    """Pre-trains one representation of MRI volumes (B, 1, D, H, W) and TVUS clips (C, 1, T, H, W) of other patients.

        loss = L_mri + clip_weight * L_tvus

    Each L is the mean squared error over the masked voxels of its modality. The encoders share attention and MLP and
    keep stems and layer norms of their own (`share_blocks`); the decoders share nothing. That one transformer can learn
    from still and moving images by masking both is from Girdhar et al., "OmniMAE: Single Model Masked Pretraining on
    Images and Videos", CVPR 2023 (arXiv 2206.08356), where the norms are shared, too; MRI as one of the two, and their
    weights, are ours.

    Logs ``train/loss``, its parts ``train/loss_mri`` and ``train/loss_tvus``, and ``val/loss``, which selects: that of
    MRI alone, as in `MAEPretrain`, for MRI is what the student reads.

    Args:
        mri: The masked auto-encoder of volumes, whose encoder lends its blocks.
        tvus: That of clips; its encoder has the same width, depth and heads.
        optimisation: Makes optimiser and learning-rate schedule.
        clip_weight: Of the clips' loss, at least 0.

    Raises:
        InputError: The encoders' blocks differ, or `clip_weight` is negative.
    """

    def __init__(
        self,
        mri: MaskedAutoEncoder3D,
        tvus: MaskedAutoEncoder3D,
        optimisation: Optimisation,
        clip_weight: float = 1.0,
    ) -> None:
        super().__init__(mri, optimisation)  # as `network`, by which `load_encoder` finds it
        if not clip_weight >= 0:
            raise InputError(f"clip_weight is {clip_weight}: give at least 0")
        self.save_hyperparameters()
        share_blocks(mri.encoder, tvus.encoder)
        self.clip_network = tvus
        self.clip_weight = clip_weight

    def on_fit_start(self) -> None:
        """Looks for the clips."""
        batched_clips(self.trainer.datamodule)  # type: ignore[attr-defined]

    def training_step(self, batch: Batches, batch_idx: int) -> Tensor:
        """Returns the loss of a batch under random masks."""
        loss_mri = self.network(batch["mri"]["image"]).loss
        loss_tvus = self.clip_network(batch["tvus"]["image"]).loss
        loss = loss_mri + self.clip_weight * loss_tvus
        self.log_dict(
            {"train/loss": loss, "train/loss_mri": loss_mri, "train/loss_tvus": loss_tvus},
            on_step=False,
            on_epoch=True,
            batch_size=len(batch["mri"]["image"]),
            sync_dist=True,
        )
        return loss
