"""The fits that `distillation_epoch.py` times, one of them with the teacher run in every step."""

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from demo_stages import demo_stage
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from data_modules.cohort_dataset import in_unit_range
from data_modules.unpaired import UnpairedDataModule
from poddistill.lightning_cli import StageCLI
from poddistill.losses.unpaired import TeacherBank
from poddistill.pod.cohorts import teacher_bank
from poddistill.pod.student_kd import StudentKD
from poddistill.pod.teacher_tvus import TeacherTVUS


class TeacherInStep:
    """Stands for the kept logits: indexed with rows of the bank, it runs the teacher on their clips, which lie in RAM.

    Args:
        checkpoint: The teacher's.
        data: Its labelled training clips are the bank's rows.
    """

    def __init__(self, checkpoint: str, data: UnpairedDataModule) -> None:
        self.teacher = TeacherTVUS.load_from_checkpoint(checkpoint, map_location="cpu").eval()
        rows = np.flatnonzero(data.tvus.manifest["split"] == "train")
        self.clips = data.tvus.sequential_dataloader(rows).dataset
        self.clips.__getitems__(range(len(rows)))  # reads the files

    @torch.no_grad()
    def __getitem__(self, rows: Tensor) -> Tensor:
        """Returns the logits (B,) of the clips in rows (B,)."""
        return self.teacher(in_unit_range(self.clips.__getitems__(rows.tolist())["image"]))


class PutTeacherInStep(Callback):
    """Lets a student meet the teacher itself instead of its kept outputs."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: StudentKD) -> None:
        """Replaces the kept outputs."""
        bank = pl_module.bank
        in_step = TeacherInStep(pl_module.teacher, trainer.datamodule)
        pl_module.bank = SimpleNamespace(logits=in_step, labels=bank.labels, case_ids=bank.case_ids)


class EpochClock(Callback):
    """Takes the seconds from an epoch's start to the end of its last step, and counts steps."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.steps = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self.start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops the clock after the last step."""
        self.steps += 1
        if trainer.is_last_batch:
            self.seconds.append(time.perf_counter() - self.start)


class Bench:
    """The cohort, a briefly trained encoder and teacher to build on, and the fits of the student.

    Args:
        cohort: The cohort folder.
        folder: Where runs are written.
        epochs: Timed epochs of a fit.
        copies: Augmented copies of a clip.
    """

    def __init__(self, cohort: Path, folder: Path, epochs: int, copies: int) -> None:
        self.cohort, self.folder, self.epochs = cohort, folder, epochs
        encoder, self.teacher = (self._pretrain(stage) for stage in ("mae", "teacher"))
        plain = ("--model.init_args.init_encoder", encoder)
        kept = (*plain, "--model.init_args.teacher", self.teacher)
        tvus = "--data.init_args.tvus.init_args.augmentation"
        augmented = (tvus, "data_modules.augmentation.ClipAugmentation", "--data.init_args.clip_copies", str(copies))
        self.options = {"plain": plain, "kept": kept, "copies": (*kept, *augmented), "in step": kept}

    def _pretrain(self, stage: str) -> str:
        once = (f"--profile.{stage}_epochs", "1", f"--profile.{stage}_validate_every", "1")
        cli = demo_stage(stage, self.cohort, self.folder / stage, *once)
        cli.trainer.fit(cli.model, cli.datamodule)
        return str(self.folder / stage / "checkpoints" / "best.ckpt")

    def student(self, side: str, run: Path, epochs: int) -> tuple[StageCLI, EpochClock]:
        """Fits a student for some epochs."""
        length = ("--profile.student_epochs", str(epochs), "--profile.student_validate_every", str(epochs))
        cli = demo_stage("student", self.cohort, run, *self.options[side], *length)
        clock = EpochClock()
        cli.trainer.callbacks += [clock] + ([PutTeacherInStep()] if side == "in step" else [])
        cli.trainer.fit(cli.model, cli.datamodule)
        return cli, clock

    def epoch(self, side: str) -> float:
        """Returns the median seconds of a fit's epochs, the first left out."""
        with tempfile.TemporaryDirectory(dir=self.folder) as run:
            _, clock = self.student(side, Path(run), self.epochs + 1)
        return statistics.median(clock.seconds[1:])

    def lookup(self, side: str, anew: bool) -> tuple[float, TeacherBank]:
        """Computes the outputs that a side keeps, or reads them; returns the seconds and the outputs."""
        cli = demo_stage("student", self.cohort, self.folder / "lookup", *self.options[side])
        if anew:
            shutil.rmtree(self.folder / "teacher" / "outputs", ignore_errors=True)
        cli.trainer.datamodule = cli.datamodule
        start = time.perf_counter()
        bank = teacher_bank(self.teacher, cli.trainer, torch.device("cpu"))
        return time.perf_counter() - start, bank
