"""Stage 3: the MRI student learns from few labels and from the ultrasound of other patients."""

from typing import Any

import torch
from torch import Tensor, nn

from data_modules.cohort_dataset import in_unit_range
from data_modules.errors import InputError
from data_modules.mri import MRIDataModule
from data_modules.unpaired import UnpairedDataModule
from poddistill.losses.controls import Control
from poddistill.losses.labels import LabelLoss
from poddistill.losses.schedules import Schedule
from poddistill.losses.transfer import Transfer
from poddistill.losses.unpaired import StudentBatch, TeacherBank
from poddistill.nets.head import Head
from poddistill.pod.clips_in_batches import refuse_clips
from poddistill.pod.cohorts import student_cohort, teacher_bank
from poddistill.pod.detector import Batch, Detector
from poddistill.pod.linear_probe import LinearProbe
from poddistill.training.checkpoints import load_encoder
from poddistill.training.optimisation import Optimisation
from poddistill.training.processes import by_first


class StudentKD(Detector):
    r"""Detects POD obliteration from MRI volumes (B, 1, D, H, W), taught by a frozen teacher of TVUS clips.

    Zhang et al., "Distilling Missing Modality Knowledge from Ultrasound for Endometriosis Diagnosis with Magnetic
    Resonance Images", ISBI 2023 (arXiv 2307.02000):

        loss = w(epoch) * L_KD + (1 - w(epoch)) * L_labels,    w(epoch) = alpha ** epoch

    L_KD lets the student's output regress the teacher's on clips of *other* patients, L_labels is the loss of the
    labels. How MRI and clip are matched, what is regressed and alpha are not settled by the paper; they are the
    arguments `transfer` and `schedule`. Some ways of transfer also learn from unlabelled MRI, which come in the same
    batch; L_labels leaves those out.

    Without `init_encoder` the encoder starts from scratch; without `transfer`, or without a `teacher` where it needs
    one, the loss is L_labels alone. Those are the baselines.

    Logs ``train/loss`` and its parts ``train/labels`` and ``train/distillation``, ``train/distillation_weight``, and
    the scores of `Detector`.

    Args:
        encoder: Volumes to features (B, width), with an attribute ``width``.
        label_loss: Loss of logits (B,) against labels (B,).
        optimisation: Makes optimiser and learning-rate schedule.
        init_encoder: Checkpoint of `MAEPretrain` whose encoder to start from.
        teacher: Checkpoint of `TeacherTVUS`.
        transfer: L_KD.
        schedule: w(epoch).
        control: Replaces the teacher's outputs by some that know less, to see what a gain comes from.
        probe: Sets the head before training, from the labels and the soft labels that the transfer may have; without
            it the head starts at random.
        control_teacher: Checkpoint of a `TeacherTVUS` that knows less, which takes the place of `teacher` as a
            control.
        freeze_encoder: Whether the encoder stays as it starts, computing as in evaluation, and only the rest trains.
    """

    def __init__(
        self,
        encoder: nn.Module,
        label_loss: LabelLoss,
        optimisation: Optimisation,
        init_encoder: str | None = None,
        teacher: str | None = None,
        transfer: Transfer | None = None,
        schedule: Schedule | None = None,
        control: Control | None = None,
        probe: LinearProbe | None = None,
        control_teacher: str | None = None,
        freeze_encoder: bool = False,
    ) -> None:
        super().__init__(label_loss, optimisation)
        self.save_hyperparameters()
        self.encoder = encoder
        self.head = Head(encoder.width, 1)  # type: ignore[arg-type]
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.init_encoder = init_encoder
        self.teacher = teacher
        self.transfer = transfer if transfer is not None and (teacher or not transfer.needs_teacher) else None
        self.schedule = schedule
        self.control = control
        self.control_teacher = control_teacher
        self.probe = probe
        self.freeze_encoder = freeze_encoder
        if freeze_encoder:
            self.encoder.requires_grad_(False).eval()
        self.bank: TeacherBank | None = None
        self.covariates: Tensor | None = None

    def setup(self, stage: str) -> None:
        """Loads the pre-trained encoder before training; a checkpoint that is resumed from replaces it."""
        if stage == "fit" and self.init_encoder:
            load_encoder(self.encoder, self.init_encoder)

    def train(self, mode: bool = True) -> "StudentKD":
        """Sets training mode; a frozen encoder stays in that of evaluation, lest the statistics of its norms move."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def on_fit_start(self) -> None:
        """Looks up the frozen teacher's outputs, which never change, so each clip is seen once; prepares the transfer.

        Raises:
            InputError: There is a teacher, but not all that distillation needs, or a control that would change
                nothing of it; batches hold clips; or an earlier stage was trained on patients who are held out here.
        """
        super().on_fit_start()
        refuse_clips(self._data())
        for name in ("transfer", "schedule"):
            if self.teacher and getattr(self, name) is None:
                raise InputError(f"model.teacher is set, but model.{name} is not: give both, or no teacher")
        for name in ("control", "control_teacher"):
            if getattr(self, name) is not None:
                self._refuse_idle(name)
        self.build_on(self.init_encoder, self.control_teacher or self.teacher)
        if self.transfer is not None:
            self._prepare_transfer(self.transfer)
        if self.probe is not None and self.trainer.ckpt_path is None:  # else the head goes on from where it was
            self._set_head(self.probe)
        if self.transfer is not None:  # last, for it may copy the network as training finds it
            self.transfer.attach(nn.Sequential(self.encoder, self.head))

    def _refuse_idle(self, control: str) -> None:
        """Refuses a control that would give the same training as none, which a study would take for a tie."""
        if self.transfer is None or not self.teacher:
            raise InputError(
                f"model.{control} is set, but there is no teacher to distil whose place it could take: leave the "
                "control out, or set model.teacher and model.transfer"
            )
        if not self.transfer.reads_outputs:
            raise InputError(
                f"model.{control} replaces what the teacher says of clips, but model.transfer "
                f"{type(self.transfer).__name__} does not read that: leave the control out"
            )

    def _prepare_transfer(self, transfer: Transfer) -> None:
        if self.schedule is None:
            raise InputError("model.transfer is set, but model.schedule is not: give both, or neither")
        self._refuse_without_unlabelled(transfer)
        if teacher := self.control_teacher or self.teacher:
            self.bank = teacher_bank(teacher, self.trainer, self.device)
            if (self.control is not None or self.control_teacher) and not transfer.reads(self.bank):
                raise InputError(
                    "every clip has a label, which model.transfer takes in place of what a teacher says of it, so "
                    "that a control of the teacher changes nothing: leave it out, or set n_labelled_clips"
                )
            if self.control is not None:
                self.bank = self.control(self.bank)
        cohort = student_cohort(self._data())
        self.covariates = cohort.covariates.to(self.device)
        transfer.prepare(cohort, self.bank)
        self._refuse_without_unlabelled(transfer)  # some know only now
        silent = int((cohort.unlabelled & ~cohort.recorded).sum())
        if cohort.covariates.shape[1] and silent:
            self.print(f"{silent} of {int(cohort.unlabelled.sum())} unlabelled volumes have none of the covariates")
        if cohort.covariates.shape[1] and self.bank is not None and not self.bank.recorded.all():
            self.print(
                f"{int((~self.bank.recorded).sum())} of {len(self.bank.recorded)} clips have none of the covariates"
            )

    def _refuse_without_unlabelled(self, transfer: Transfer) -> None:
        if transfer.needs_unlabelled and not self._mri().unlabelled_batch_size:
            raise InputError(
                f"model.transfer {type(transfer).__name__} learns from unlabelled volumes, but no batch has any: "
                "set data.mri.unlabelled_batch_size"
            )

    def _set_head(self, probe: LinearProbe) -> None:
        known = student_cohort(self._data()).labels
        soft = None if self.transfer is None else self.transfer.soft_labels()
        if soft is not None:
            known = known.where(~known.isnan(), soft.cpu())
        rows = (~known.isnan()).nonzero().flatten()

        def fit() -> None:
            batches = self._mri().sequential_dataloader(rows.numpy())
            volumes = (in_unit_range(batch["image"].to(self.device, non_blocking=True)) for batch in batches)
            with torch.compiler.set_stance("force_eager"):  # a few other shapes are not worth another compilation
                probe(self.encoder, self.head, volumes, known[rows])

        by_first(self.trainer, fit)
        for parameter in self.head.parameters():
            parameter.data.copy_(self.trainer.strategy.broadcast(parameter.data.cpu()))  # else all to one GPU

    def _mri(self) -> MRIDataModule:
        data = self._data()
        return data.mri if isinstance(data, UnpairedDataModule) else data

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves out what belongs to the transfer where that is not trained on: at test time there is only MRI."""
        if self.transfer is None:
            weights = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: weights[name] for name in weights if not name.startswith("transfer.")}

    def forward(self, volume: Tensor) -> Tensor:
        """Returns the logits (B,) of volumes (B, 1, D, H, W)."""
        return self.head(self.encoder(volume)).squeeze(-1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch."""
        features = self.encoder(batch["image"])
        logits = self.head(features).squeeze(-1)
        labels_loss = self.label_loss(logits, batch["label"])
        parts: dict[str, Tensor | float] = {"train/labels": labels_loss}
        loss = labels_loss
        if self.transfer is not None and self.schedule is not None and self.covariates is not None:
            index = batch["index"]
            student = StudentBatch(logits, features, batch["label"], self.covariates[index], index, batch["image"])
            transfer_loss = self.transfer(student, self.bank)
            weight = self.schedule(self.current_epoch)
            loss = weight * transfer_loss + (1 - weight) * labels_loss
            parts |= {"train/distillation": transfer_loss, "train/distillation_weight": weight}
        self.log_dict(
            {"train/loss": loss, **parts},
            on_step=False,
            on_epoch=True,
            batch_size=len(logits),
            sync_dist=True,
        )
        return loss
