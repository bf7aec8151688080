"""The demo's cohort, and its stages on a CPU as `poddistill fit` builds them from the shipped configurations."""

import subprocess
from pathlib import Path

from timing import on_cpu_only

from poddistill import lightning_cli
from poddistill.lightning_cli import StageCLI
from poddistill.training.progress import ProgressLines

ROOT = Path(__file__).resolve().parents[1]
COHORT = ROOT / "cohorts" / "demo"

on_cpu_only()


def demo_cohort(folder: Path) -> Path:
    """Returns a cohort's folder; `make cohort` simulates and ingests the demo's where it is missing.

    Raises:
        SystemExit: It could not be made, or another folder holds no cohort.
    """
    if all((folder / f"{modality}.csv").is_file() for modality in ("mri", "tvus")):
        return folder
    if folder.resolve() != COHORT:
        raise SystemExit(f"error: {folder} holds no mri.csv and tvus.csv; give a cohort, or leave --cohort out")
    if subprocess.run(["make", "--no-print-directory", "cohort"], cwd=ROOT, check=False).returncode:
        raise SystemExit("error: make cohort failed")
    return folder


def demo_stage(stage: str, cohort: Path, run: Path, *options: str) -> StageCLI:
    """Builds model, data and trainer of a stage: `mae`, `teacher` or `student` in the demo's profile.

    Metrics go to the run folder's CSV file alone: Weights & Biases would write from a second process beside the clock,
    and lines of progress would go between the lines of a table.

    Args:
        stage: Which file of ``experiments/pod``.
        cohort: The cohort folder.
        run: The run folder.
        options: Further options of `poddistill fit`.
    """
    files = [str(ROOT / "experiments" / "pod" / f"{name}.yaml") for name in ("demo", stage)]
    configs = [word for file in files for word in ("--config", file)]
    cli = lightning_cli.build([*configs, "--cohort", str(cohort), "--run", str(run), *options])
    cli.trainer.loggers = cli.trainer.loggers[:1]
    cli.trainer.callbacks = [one for one in cli.trainer.callbacks if not isinstance(one, ProgressLines)]
    return cli
