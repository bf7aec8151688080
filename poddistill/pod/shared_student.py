"""Stage 3 by a shared representation: one head learns from few labelled MRI and from labelled ultrasound clips."""

import torch
from torch import Tensor, nn

from poddistill.losses.labels import LabelLoss
from poddistill.losses.schedules import Schedule
from poddistill.nets.head import Head
from poddistill.nets.shared import share_blocks
from poddistill.nets.vision_transformer import VisionTransformer3D
from poddistill.pod.clips_in_batches import batched_clips
from poddistill.pod.detector import Detector
from poddistill.pod.shared_mae import Batches
from poddistill.training.checkpoints import load_encoder
from poddistill.training.optimisation import Optimisation


class SharedStudent(Detector):
    r"""Detects POD obliteration from MRI volumes (B, 1, D, H, W), and learns it from TVUS clips of other patients, too.

        loss = w(epoch) * L_clips + (1 - w(epoch)) * L_labels

    L_labels is the loss of the volumes' labels, L_clips that of the clips' (C, 1, T, H, W). Both pass through the same
    attention, MLP and head; stems and layer norms are each modality's own (`share_blocks`). No teacher is needed: what
    ties a patient of one cohort to one of the other is the shared representation. At test time there is only MRI. The
    method is ours; its loss has the form of that of Zhang et al., ISBI 2023 (arXiv 2307.02000).

    Logs ``train/loss`` and its parts ``train/labels`` and ``train/clips``, ``train/clips_weight``, and the scores of
    `Detector`.

    Args:
        encoder: Of volumes; it lends its blocks.
        clip_encoder: Of clips; it has the same width, depth and heads.
        label_loss: Loss of logits (B,) against the volumes' labels (B,).
        clip_loss: Loss of logits (C,) against the clips' labels (C,).
        schedule: w(epoch).
        optimisation: Makes optimiser and learning-rate schedule.
        init_encoder: Checkpoint of `SharedMAEPretrain` whose encoders to start from; None: from scratch.

    Raises:
        InputError: The encoders' blocks differ.
    """

    def __init__(
        self,
        encoder: VisionTransformer3D,
        clip_encoder: VisionTransformer3D,
        label_loss: LabelLoss,
        clip_loss: LabelLoss,
        schedule: Schedule,
        optimisation: Optimisation,
        init_encoder: str | None = None,
    ) -> None:
        super().__init__(label_loss, optimisation)
        self.save_hyperparameters()
        share_blocks(encoder, clip_encoder)
        self.encoder = encoder
        self.clip_encoder = clip_encoder
        self.head = Head(encoder.width, 1)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.clip_loss = clip_loss
        self.schedule = schedule
        self.init_encoder = init_encoder

    def setup(self, stage: str) -> None:
        """Loads the pre-trained encoders before training; a checkpoint that is resumed from replaces them."""
        if stage == "fit" and self.init_encoder:
            load_encoder(self.encoder, self.init_encoder)
            load_encoder(self.clip_encoder, self.init_encoder, "tvus")

    def on_fit_start(self) -> None:
        """Takes the class weights of either modality from its own training labels.

        Raises:
            InputError: The batches hold no clips, or the encoders were pre-trained on patients who are held out here.
        """
        super().on_fit_start()
        self.build_on(self.init_encoder)
        self.clip_loss.prepare(torch.tensor(batched_clips(self._data()).train_labels, dtype=torch.float32))

    def forward(self, volume: Tensor) -> Tensor:
        """Returns the logits (B,) of volumes (B, 1, D, H, W)."""
        return self.head(self.encoder(volume)).squeeze(-1)

    def training_step(self, batch: Batches, batch_idx: int) -> Tensor:
        """Returns the loss of a batch."""
        volumes, clips = batch["mri"], batch["tvus"]
        features = torch.cat([self.encoder(volumes["image"]), self.clip_encoder(clips["image"])])  # (B + C, width)
        logits, clip_logits = self.head(features).squeeze(-1).tensor_split([len(volumes["image"])])
        labels_loss = self.label_loss(logits, volumes["label"])
        clips_loss = self.clip_loss(clip_logits, clips["label"])
        weight = self.schedule(self.current_epoch)
        loss = weight * clips_loss + (1 - weight) * labels_loss
        self.log_dict(
            {
                "train/loss": loss,
                "train/labels": labels_loss,
                "train/clips": clips_loss,
                "train/clips_weight": weight,
            },
            on_step=False,
            on_epoch=True,
            batch_size=len(logits),
            sync_dist=True,
        )
        return loss
