"""The run folder: checkpoints that make can trust, metrics that survive a resume, predictions."""

import csv
import fcntl
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from data_modules.errors import InputError
from data_modules.files import replacing
from poddistill.training.checkpoints import hashed
from poddistill.training.scores import CaseScores, require_finite


def is_dry(trainer: pl.Trainer) -> bool:
    """Tells whether this is a ``fast_dev_run``, which writes nothing."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds a run folder against a second training, which would write into the same files.

    Where the file system knows no locks, nothing is held.

    Raises:
        InputError: Another process is training into the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another process is training into it; wait until it has finished, or give another --run"
            ) from error
        except OSError:
            pass
        yield


class RunConfig(SaveConfigCallback):
    """Writes ``config.yaml`` when a stage is fitted, and only then: scoring a run leaves its record alone.

    What the options ``--run``, ``--method``, ``--cohort`` and ``--fold`` gave is written as a reference to them, as in
    the stage files. So the file can be scored on another cohort, or into another folder, by these options.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Writes the file from process 0."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Writes the file; Lightning calls this in process 0 alone."""
        dumped = self.parser.dump(self.config, skip_none=False)
        config = yaml.safe_load(dumped)
        options = {name: config[name] for name in ("run", "method", "cohort", "fold")}
        text = yaml.safe_dump({**_referring(config, "", options), **options}, sort_keys=False)
        folder = Path(options["run"])
        folder.mkdir(parents=True, exist_ok=True)
        header = "".join(
            line for line in dumped.splitlines(keepends=True) if line.startswith("#")
        )  # Lightning's version
        (folder / self.config_filename).write_text(header + text)


def _referring(node: Any, key: str, options: dict[str, Any]) -> Any:
    """Returns a part of a configuration, which stands under a key, with references in place of the options' values."""
    if isinstance(node, dict):
        return {name: _referring(value, name, options) for name, value in node.items()}
    if isinstance(node, list):
        return [_referring(value, key, options) for value in node]
    option = "method" if key == "name" else key
    if option in ("method", "cohort", "fold") and node is not None and node == options[option]:
        return f"${{{option}}}"
    run = options["run"]
    inside = isinstance(node, str) and (
        node == run or (node.startswith(f"{run}/") and not node.startswith(f"{run}/.."))
    )
    return f"${{run}}{node[len(run) :]}" if inside else node


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final name and renames it, so that a kill never leaves half of one.

    Lightning's own goes through the system's temporary folder, from where a move to another disk is a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes the file in one step."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            torch.save(checkpoint, temporary)


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/last.ckpt`` while training and publishes ``checkpoints/best.ckpt`` once it is finished.

    The existence of ``best.ckpt`` says that the stage is done, which is what the pipeline builds on: the best one so
    far is held as ``best-so-far.ckpt`` and linked to its final name, in one step, at the end of the fit. After a kill
    only ``last.ckpt`` stands, and training resumes from it.

    Of epochs with equal scores the one with the lowest ``val/loss`` is kept: on a small validation fold the AUROC
    reaches its top early, long before the probabilities mean anything.

    Args:
        dirpath: The run's ``checkpoints`` folder.
        monitor: The validation metric that selects.
        mode: ``"max"`` or ``"min"``.
    """

    def __init__(self, dirpath: str, monitor: str, mode: str) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best-so-far",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            save_last=True,
            save_on_train_epoch_end=False,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self.loss_of_best = math.inf
        self._seen: set[str] = set()  # patients of the training that is resumed, hashed

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remembers whom the training that is resumed has seen; the cohort may have lost some of them since."""
        self._seen = set(checkpoint.get("trained_patients", []))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Makes sure, before anything is trained, that the best is known.

        Raises:
            InputError: A resumed training lacks its best checkpoint; or nothing would be validated, or in the midst of
                an epoch, from where no training can be resumed.
        """
        if not is_dry(trainer) and not trainer.limit_val_batches:
            raise InputError("trainer.limit_val_batches is 0: nothing would be validated, and so no checkpoint be best")
        if trainer.val_check_interval != 1.0:
            raise InputError(
                f"trainer.val_check_interval is {trainer.val_check_interval}: a training resumes at the end of an "
                "epoch alone; leave it at 1.0, and give check_val_every_n_epoch"
            )
        if self.best_model_path and not Path(self.best_model_path).is_file():
            raise InputError(
                f"{self.best_model_path}: missing, the best checkpoint before this training was interrupted; put it "
                "back, or delete last.ckpt and train again"
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Has the last epoch validated as well, where ``check_val_every_n_epoch`` does not divide their number."""
        if trainer.current_epoch + 1 == trainer.max_epochs and trainer.check_val_every_n_epoch:
            trainer.check_val_every_n_epoch = 1

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Tells whether the current state is better than the best, or as good with a lower loss."""
        if super().check_monitor_top_k(trainer, current):
            return True
        as_good = current is not None and bool(current == self.best_model_score)
        better = as_good and _validation_loss(trainer) < self.loss_of_best
        return trainer.strategy.reduce_boolean_decision(better)

    def _update_best_and_save(
        self, current: Tensor, trainer: pl.Trainer, monitor_candidates: dict[str, Tensor]
    ) -> None:
        self.loss_of_best = _validation_loss(trainer)
        super()._update_best_and_save(current, trainer, monitor_candidates)

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed training must know of the best so far."""
        return {**super().state_dict(), "loss_of_best": self.loss_of_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it back, also in a run folder that was moved, where Lightning would forget the best score."""
        paths = {k: self._here(state_dict[k]) for k in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})
        self.loss_of_best = state_dict.get("loss_of_best", math.inf)

    def _here(self, path: str) -> str:
        here = Path(self.dirpath or "") / Path(path).name
        return str(here) if here.is_file() else path

    # Lightning 2.6 saves the last state after a better validation only. Where every epoch is validated, it saves at the
    # end of the epoch unless told not to, and such a state resumes with the batches of the first epoch.
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Selects the best so far, and saves the last state whether it is better or not."""
        super().on_validation_end(trainer, pl_module)
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Notes the form of the images, and who was trained on, here or in an earlier stage, lest she be judged by it.

        A module says whom earlier stages have seen by an attribute ``earlier_patients``, a set of `hashed` ones.
        """
        checkpoint["image_form"] = trainer.datamodule.image_form  # type: ignore[attr-defined]
        own = hashed(trainer.datamodule.trained_patients)  # type: ignore[attr-defined]
        earlier = cast("set[str]", getattr(pl_module, "earlier_patients", set()))
        checkpoint["trained_patients"] = sorted(earlier.union(own, self._seen))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the state that is resumed for saved."""
        super().on_train_start(trainer, pl_module)
        self._last_global_step_saved = trainer.global_step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the last state; Lightning would do so in a dry run and where nothing was trained, too."""
        if not self._should_skip_saving_checkpoint(trainer):
            super().on_train_end(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Publishes the best checkpoint; an interrupted fit publishes nothing.

        Raises:
            InputError: Nothing was validated, so that nothing was selected.
        """
        if trainer.interrupted or is_dry(trainer):
            return
        if not self.best_model_path:
            raise InputError(
                f"the training ended after {trainer.global_step} steps, before its first validation, so no "
                f"checkpoint is the best: raise trainer.max_steps ({trainer.max_steps}), or lower "
                "check_val_every_n_epoch"
            )
        if trainer.is_global_zero:
            best = Path(self.best_model_path)
            published = Path(self.dirpath or "") / "best.ckpt"
            published.parent.mkdir(parents=True, exist_ok=True)
            with replacing(published) as temporary:
                try:  # a link to another run's file would change its time, too
                    (os.link if best.parent == published.parent else shutil.copyfile)(best, temporary)
                except OSError:  # file systems without hard links
                    shutil.copyfile(best, temporary)
                os.utime(temporary)  # what builds on it looks at when the stage was finished
        trainer.strategy.barrier("best checkpoint published")


def _validation_loss(trainer: pl.Trainer) -> float:
    return float(trainer.callback_metrics.get("val/loss", math.inf))


class MetricsCSV(CSVLogger):
    """Lightning's CSV logger, writing ``metrics.csv`` into the run folder and keeping it when the run is resumed.

    Lightning's own deletes the earlier file. Rows that a killed run logged after its last checkpoint are dropped, for
    those steps are done again, and so is a row that was cut off.

    Args:
        save_dir: The run folder.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir=save_dir, name="", version="")

    @property
    def experiment(self) -> ExperimentWriter:
        """The writer, holding the rows of the earlier part of this run."""
        if not getattr(rank_zero_only, "rank", 0) and self._experiment is None:
            file = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
            rows = _read_rows(file)
            file.unlink(missing_ok=True)  # else Lightning warns and does the same
            _replace_rows(super().experiment, rows)
        return super().experiment

    def drop_after(self, step: int) -> None:
        """Forgets the rows of steps that a resumed run will do again (step counts optimiser steps done)."""
        writer = self.experiment
        rows = _read_rows(Path(writer.metrics_file_path)) + writer.metrics  # saved already, or not yet
        _replace_rows(writer, [row for row in rows if int(row["step"]) < step])


def _replace_rows(writer: ExperimentWriter, rows: list[dict[str, Any]]) -> None:
    """Writes these rows in place of a writer's file at once: a run that is killed before it logs again keeps them."""
    file = Path(writer.metrics_file_path)
    writer.metrics, writer.metrics_keys = rows, []
    if not rows:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as temporary:
        writer.metrics_file_path = str(temporary)
        writer.save()
    writer.metrics_file_path = str(file)


def _read_rows(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    with file.open(newline="") as handle:
        rows = [{key: value for key, value in row.items() if key and value} for row in csv.DictReader(handle)]
    return [row for row in rows if row.get("step", "").isdecimal()]


class ResumedMetrics(Callback):
    """Tells `MetricsCSV` where a fit starts: at step 0 it begins a new file, later it continues the old one."""

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drops the rows of steps that this fit will do (again)."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                logger.drop_after(trainer.global_step)


class PredictionsWriter(Callback):
    """Writes a probability a case: ``predictions.csv`` after a test, ``predictions_all.csv`` after a predict.

    Columns: case_id, patient_id, split (train, unlabelled, unused, val, test), label (empty where unknown),
    probability.

    Args:
        dirpath: The run folder.

    Raises:
        InputError: A case has no finite output, so that nothing is written.
    """

    def __init__(self, dirpath: str) -> None:
        self.dirpath = Path(dirpath)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the validation and test cases."""
        self._write(trainer, pl_module, "predictions.csv")

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes every case of the cohort."""
        self._write(trainer, pl_module, "predictions_all.csv")

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> None:
        index, logit, _ = cast(CaseScores, pl_module.scores).compute()  # every process takes part in the gathering
        manifest = trainer.datamodule.manifest  # type: ignore[attr-defined]
        require_finite(index, logit, manifest)
        if not trainer.is_global_zero or is_dry(trainer):
            return
        table = manifest.iloc[index.cpu().numpy()]
        table = table[["case_id", "patient_id", "split", "label"]].copy()
        table["label"] = table["label"].astype("Int64")
        table["probability"] = torch.sigmoid(logit.cpu().double()).numpy()
        self.dirpath.mkdir(parents=True, exist_ok=True)
        with replacing(self.dirpath / name) as temporary:
            table.to_csv(temporary, index=False)
