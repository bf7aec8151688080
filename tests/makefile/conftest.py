"""Finished pipelines made of empty files, and dry runs of make."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = ("mae", "teacher", "student", "student-mae", "student-paper", "student-scratch")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder with a cohort and every file of a finished pipeline, in the order in which they are made."""
    run = tmp_path / "runs/demo/seed0-fold0"
    files = [tmp_path / "cohort/mri.csv", tmp_path / "cohort/tvus.csv"]
    for stage in STAGES:
        files += [run / stage / "checkpoints/last.ckpt", run / stage / "checkpoints/best.ckpt"]
        files += [run / stage / "predictions.csv"] if stage != "mae" else []
    for age, file in enumerate([*files, run / "covariates/predictions.csv", run / "report/index.html"]):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (1_000_000_000 + age, 1_000_000_000 + age))
    return tmp_path


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A folder with the manifests of a cohort."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    for modality in ("mri", "tvus"):
        (folder / f"{modality}.csv").touch()
    return folder


@pytest.fixture
def dry_run() -> Callable[..., str]:
    """What make would run: ``dry_run("study", "SEEDS=2")``."""

    def plan(*arguments: str) -> str:
        command = ["make", "--dry-run", "--no-print-directory", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    return plan
