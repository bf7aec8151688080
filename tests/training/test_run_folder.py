from pathlib import Path

import pandas as pd

from poddistill.training.run_folder import MetricsCSV


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


def test_a_fresh_run_forgets_the_old_one(tmp_path: Path) -> None:
    logger_with(tmp_path, range(6))
    fresh = MetricsCSV(str(tmp_path))
    fresh.drop_after(0)
    fresh.log_metrics({"val/loss": 1.0}, step=0)
    fresh.save()
    assert pd.read_csv(tmp_path / "metrics.csv")["val/loss"].tolist() == [1.0]
    assert "train/loss" not in pd.read_csv(tmp_path / "metrics.csv")
