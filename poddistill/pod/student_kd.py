"""Stage 3: the MRI student learns from few labels and from the ultrasound of other patients."""

import torch
from torch import Tensor, nn

from data_modules.errors import InputError
from poddistill.losses.distillation import DistillationLoss
from poddistill.losses.labels import WeightedBCE
from poddistill.losses.pairing import Pairing, TeacherBank
from poddistill.losses.schedules import Schedule
from poddistill.nets.head import Head
from poddistill.pod.detector import Batch, Detector
from poddistill.pod.teacher_outputs import teacher_bank
from poddistill.training.checkpoints import load_encoder
from poddistill.training.optimisation import Optimisation


class StudentKD(Detector):
    r"""Detects POD obliteration from MRI volumes (B, 1, D, H, W), taught by a frozen teacher of TVUS clips.

    Zhang et al., "Distilling Missing Modality Knowledge from Ultrasound for Endometriosis Diagnosis with Magnetic
    Resonance Images", ISBI 2023 (arXiv 2307.02000):

        loss = w(epoch) * L_KD + (1 - w(epoch)) * L_labels,    w(epoch) = alpha ** epoch

    L_KD lets the student's output regress the teacher's on a clip of *another* patient, L_labels is the loss of the
    labels. How MRI and clip are matched, what is regressed and alpha are not settled by the paper; they are the
    arguments `pairing`, `distillation` and `schedule`.

    Without `init_encoder` the encoder starts from scratch; without `teacher` the loss is L_labels alone. Those two are
    the baselines.

    Logs ``train/loss`` and its parts ``train/labels`` and ``train/distillation``, ``train/distillation_weight``, and
    the scores of `Detector`.

    Args:
        encoder: Volumes to features (B, width), with an attribute ``width``.
        label_loss: Loss of logits (B,) against labels (B,).
        optimisation: Makes optimiser and learning-rate schedule.
        init_encoder: Checkpoint of `MAEPretrain` whose encoder to start from.
        teacher: Checkpoint of `TeacherTVUS`.
        pairing: Chooses a clip for every volume.
        distillation: L_KD.
        schedule: w(epoch).
    """

    def __init__(
        self,
        encoder: nn.Module,
        label_loss: WeightedBCE,
        optimisation: Optimisation,
        init_encoder: str | None = None,
        teacher: str | None = None,
        pairing: Pairing | None = None,
        distillation: DistillationLoss | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(label_loss, optimisation)
        self.save_hyperparameters()
        self.encoder = encoder
        self.head = Head(encoder.width, 1)  # type: ignore[arg-type]
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.init_encoder = init_encoder
        self.teacher = teacher
        self.pairing = pairing
        self.distillation = distillation
        self.schedule = schedule
        self.bank: TeacherBank | None = None

    def setup(self, stage: str) -> None:
        """Loads the pre-trained encoder before training; a checkpoint that is resumed from replaces it."""
        if stage == "fit" and self.init_encoder:
            load_encoder(self.encoder, self.init_encoder)

    def on_fit_start(self) -> None:
        """Looks up the frozen teacher's outputs: they never change, so each clip is seen once.

        Raises:
            InputError: If there is a teacher, but not all that distillation needs.
        """
        super().on_fit_start()
        if self.teacher:
            for name in ("pairing", "distillation", "schedule"):
                if getattr(self, name) is None:
                    raise InputError(f"model.teacher is set, but model.{name} is not: give all of them, or no teacher")
            self.bank = teacher_bank(self.teacher, self.trainer, self.device)

    def forward(self, volume: Tensor) -> Tensor:
        """Returns the logits (B,) of volumes (B, 1, D, H, W)."""
        return self.head(self.encoder(volume)).squeeze(-1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch."""
        logits = self(batch["image"])
        labels_loss = self.label_loss(logits, batch["label"])
        parts = {"train/labels": labels_loss}
        loss = labels_loss
        if self.bank is not None and self.pairing and self.distillation and self.schedule:
            clips = self.pairing(batch["label"], self.bank)
            distillation_loss = self.distillation(logits, self.bank.logits[clips])
            weight = self.schedule(self.current_epoch)
            loss = weight * distillation_loss + (1 - weight) * labels_loss
            parts |= {
                "train/distillation": distillation_loss,
                "train/distillation_weight": torch.tensor(weight),
            }
        self.log_dict(
            {"train/loss": loss, **parts},
            on_step=False,
            on_epoch=True,
            batch_size=len(logits),
            sync_dist=True,
        )
        return loss
