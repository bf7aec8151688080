"""Run folders with predictions of known quality."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from poddistill.evaluation.folds import Fold

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """A function that writes one stage folder below ``tmp_path / "runs"`` and returns it.

    Every cohort has 90 patients; a third is tested in each of the folds 0 to 2. ``separation`` is the distance of the
    classes' mean logits in standard deviations; the patients' own difficulty is shared by all methods and seeds. A
    ``replicate`` is a cohort of new patients, in a folder ``cohort<c>``.
    """

    def write(
        method: str,
        seed: int = 0,
        fold: int = 0,
        separation: float = 2.0,
        cohort: str = "mri",
        replicate: int | None = None,
    ) -> Path:
        parent = tmp_path / "runs" if replicate is None else tmp_path / "runs" / f"cohort{replicate}"
        folder = parent / f"seed{seed}-fold{fold}" / method
        (folder / "figures").mkdir(parents=True)
        shared = np.random.default_rng([len(cohort), replicate or 0])
        labels = np.tile([1, 0, 0], 30)
        difficulty = shared.normal(size=90)
        own = np.random.default_rng([seed, fold, *method.encode(), *([replicate] if replicate else [])])
        logit = difficulty + separation * labels - 1 + 0.5 * own.normal(size=90)
        test_fold = np.arange(90) // 3 % 3
        split = np.where(test_fold == fold, "test", np.where(test_fold == (fold + 1) % 3, "val", "train"))
        name = cohort if replicate is None else f"{cohort}{replicate}"
        table = pd.DataFrame(
            {
                "case_id": [f"{name}-{index:03d}" for index in range(90)],
                "patient_id": [f"{name}-patient-{index:03d}" for index in range(90)],
                "split": split,
                "label": labels,
                "probability": 1 / (1 + np.exp(-logit)),
            }
        )
        table.to_csv(folder / "predictions.csv", index=False)
        write_history(folder, ("train/loss", "val/loss", "val/auroc"))
        return folder

    return write


@pytest.fixture
def write_mae(tmp_path: Path) -> WriteRun:
    """A function that writes a pre-training stage: a history and a figure, but no predictions."""

    def write(seed: int = 0, fold: int = 0) -> Path:
        folder = tmp_path / "runs" / f"seed{seed}-fold{fold}" / "mae"
        (folder / "figures").mkdir(parents=True)
        write_history(folder, ("train/loss", "val/loss"))
        Figure(figsize=(1, 1)).savefig(folder / "figures" / "reconstruction.png")
        return folder

    return write


@pytest.fixture
def study(tmp_path: Path, write_run: WriteRun, write_mae: WriteRun) -> Path:
    """Two seeds in each of two folds, of a teacher on other patients, a good and a poor student."""
    for seed in range(2):
        for fold in range(2):
            write_mae(seed, fold)
            write_run("teacher", seed, fold, cohort="tvus")
            write_run("student-scratch", seed, fold, separation=0.2)
            write_run("student", seed, fold, separation=2.5)
    return tmp_path / "runs"


def write_history(folder: Path, metrics: tuple[str, ...]) -> None:
    """Write a sparse metrics.csv: a row an epoch and a metric, 3 epochs."""
    rows = [{"step": 10 * epoch, "epoch": epoch, metric: 0.5 + 0.1 * epoch} for epoch in range(3) for metric in metrics]
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)


@pytest.fixture
def draw_methods() -> Callable[..., list[Fold]]:
    """A function that draws one study: methods tested by several seeds each on the same patients.

    A score is separation * label + the patient's difficulty (shared by all) + the patient's difficulty for the method
    (0.4) + noise of its own (0.7); a seed's separation varies around its method's by ``spread``. 40 % are positive.
    """

    def draw(
        rng: np.random.Generator, separations: list[float], seeds: int, spread: float = 0.5, patients: int = 60
    ) -> list[Fold]:
        labels = np.repeat([1, 0], [patients * 2 // 5, patients - patients * 2 // 5])
        shared = 0.7 * rng.normal(size=patients)
        folds = []
        for separation in separations:
            quality = rng.normal(separation, spread, size=(seeds, 1))
            own = 0.4 * rng.normal(size=patients) + 0.7 * rng.normal(size=(seeds, patients))
            folds.append(Fold(labels, np.arange(patients), quality * labels + shared + own))
        return folds

    return draw
