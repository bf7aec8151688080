"""What survives in a run folder: metrics across a resume, and the best checkpoint."""

import shutil
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from data_modules.errors import InputError
from poddistill.training.checkpoints import hashed
from poddistill.training.run_folder import BestCheckpoint, MetricsCSV


def logger_with(folder: Path, steps: range) -> MetricsCSV:
    logger = MetricsCSV(str(folder))
    for step in steps:
        logger.log_metrics({"train/loss": step / 10, "epoch": step // 2}, step=step)
    logger.save()
    return logger


def test_a_resumed_run_keeps_the_rows_before_its_checkpoint(tmp_path: Path) -> None:
    logger_with(tmp_path, range(6))
    resumed = MetricsCSV(str(tmp_path))
    resumed.log_metrics({"lr": 1.0}, step=0)
    resumed.save()  # something is saved before the trainer knows where it resumes
    resumed.drop_after(4)
    resumed.log_metrics({"train/loss": 9.0, "val/auroc": 0.5, "epoch": 2}, step=4)
    resumed.save()
    table = pd.read_csv(tmp_path / "metrics.csv")
    losses = table.dropna(subset="train/loss")
    assert losses["step"].tolist() == [0, 1, 2, 3, 4]
    assert losses["train/loss"].tolist() == [0.0, 0.1, 0.2, 0.3, 9.0]


def test_a_resumed_run_that_is_killed_before_it_logs_keeps_its_rows(tmp_path: Path) -> None:
    logger_with(tmp_path, range(6))
    MetricsCSV(str(tmp_path)).drop_after(4)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["step"].tolist() == [0, 1, 2, 3]
    assert table["train/loss"].tolist() == [0.0, 0.1, 0.2, 0.3]
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["metrics.csv"]


def test_a_fresh_run_forgets_the_old_one(tmp_path: Path) -> None:
    logger_with(tmp_path, range(6))
    fresh = MetricsCSV(str(tmp_path))
    fresh.drop_after(0)
    fresh.log_metrics({"val/loss": 1.0}, step=0)
    fresh.save()
    assert pd.read_csv(tmp_path / "metrics.csv")["val/loss"].tolist() == [1.0]
    assert "train/loss" not in pd.read_csv(tmp_path / "metrics.csv")


def test_a_row_that_was_cut_off_does_not_stop_a_resume(tmp_path: Path) -> None:
    logger_with(tmp_path, range(6))
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("5")
    resumed = MetricsCSV(str(tmp_path))
    resumed.drop_after(6)
    resumed.save()
    assert pd.read_csv(tmp_path / "metrics.csv")["step"].tolist() == list(range(6))


class Told(pl.LightningModule):
    """Has an AUROC and a loss that are told beforehand, an epoch each, and one weight that counts the epochs."""

    def __init__(self, aurocs: list[float], losses: list[float]) -> None:
        super().__init__()
        self.aurocs, self.losses = aurocs, losses
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return -self.weight.sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val/auroc", self.aurocs[self.current_epoch])
        self.log("val/loss", self.losses[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Cases(pl.LightningDataModule):
    trained_patients = frozenset({"a"})
    image_form: ClassVar = {"shape": [1]}

    def train_dataloader(self) -> DataLoader:
        return DataLoader(torch.zeros(1, 1))

    val_dataloader = train_dataloader


def fitted(folder: Path, epochs: int, told: Told, resume: Path | None = None, **options: float) -> float:
    """The epoch, from 1, whose weights are published."""
    best = BestCheckpoint(str(folder / "checkpoints"), "val/auroc", "max")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=epochs, callbacks=[best], **options, **quiet)  # type: ignore[arg-type]
    trainer.fit(told, datamodule=Cases(), ckpt_path=resume)
    file = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=False)
    return float(file["state_dict"]["weight"])


@pytest.mark.parametrize(
    ("aurocs", "losses", "published"),
    [
        ([0.5, 0.9, 0.9, 0.9], [0.7, 0.6, 0.4, 0.5], 3),  # equal: the lowest loss
        ([0.5, 0.9, 0.8, 0.7], [0.7, 0.6, 0.1, 0.1], 2),  # the score comes first
        ([0.9, 0.9, 0.95, 0.95], [0.1, 0.1, 0.8, 0.9], 3),  # the first of what is equal in both
    ],
)
def test_equal_scores_are_told_apart_by_their_loss(
    tmp_path: Path, aurocs: list[float], losses: list[float], published: int
) -> None:
    assert fitted(tmp_path, 4, Told(aurocs, losses)) == published
    for half in (tmp_path / "first", tmp_path / "second"):
        half.mkdir()
    fitted(tmp_path / "first", 2, Told(aurocs, losses))
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    assert fitted(tmp_path / "first", 4, Told(aurocs, losses), last) == published, "a resumed one knows of it"


def test_a_run_folder_that_was_moved_knows_its_best(tmp_path: Path) -> None:
    told = Told([0.5, 0.9, 0.8, 0.7], [0.7, 0.6, 0.1, 0.1])
    fitted(tmp_path / "old", 2, told)
    (tmp_path / "old").rename(tmp_path / "moved")
    last = tmp_path / "moved" / "checkpoints" / "last.ckpt"
    shutil.copytree(tmp_path / "moved", tmp_path / "other")
    assert fitted(tmp_path / "moved", 4, told, last) == 2
    before = last.with_name("best.ckpt").stat().st_mtime_ns
    assert fitted(tmp_path / "further", 4, told, last) == 2, "into another folder"
    assert last.with_name("best.ckpt").stat().st_mtime_ns == before
    shutil.rmtree(tmp_path / "moved")
    (tmp_path / "other/checkpoints/best-so-far.ckpt").unlink()
    with pytest.raises(InputError, match=r"best-so-far\.ckpt: missing, .* put it back, or delete last\.ckpt"):
        fitted(tmp_path / "other", 4, told, tmp_path / "other/checkpoints/last.ckpt")


@pytest.mark.parametrize("every", [3, 5])
def test_the_last_epoch_is_scored_whatever_their_number(tmp_path: Path, every: int) -> None:
    told = Told([0.5, 0.9, 0.6, 0.7], [0.5] * 4)
    assert fitted(tmp_path, 4, told, check_val_every_n_epoch=every) == 4


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("limit_val_batches", 0.0, r"^trainer\.limit_val_batches is 0: nothing would be validated"),
        ("val_check_interval", 0.5, r"^trainer\.val_check_interval is 0\.5: a training resumes at the end of an epoch"),
    ],
)
def test_a_training_that_could_not_be_selected_or_resumed_is_not_begun(
    tmp_path: Path, option: str, value: float, message: str
) -> None:
    told = Told([0.5] * 4, [0.5] * 4)
    with pytest.raises(InputError, match=message):
        fitted(tmp_path, 4, told, **{option: value})
    assert told.weight == 0


def test_a_training_that_ends_before_its_first_validation_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^the training ended after 1 steps, before its first .* trainer\.max_steps \(1\)"
    ):
        fitted(tmp_path, 4, Told([0.5] * 4, [0.5] * 4), max_steps=1, check_val_every_n_epoch=2)


def test_whom_a_resumed_training_has_seen_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told([0.5] * 4, [0.5] * 4)
    fitted(tmp_path, 2, told)
    last = tmp_path / "checkpoints" / "last.ckpt"
    monkeypatch.setattr(Cases, "trained_patients", frozenset({"b"}))
    fitted(tmp_path, 4, told, last)
    assert set(torch.load(last)["trained_patients"]) == set(hashed(["a", "b"]))
