"""Stages on the tiny cohort, through the very configurations that are shipped."""

from collections.abc import Callable
from pathlib import Path

import pytest

from poddistill.lightning_cli import run

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

TINY = {
    "volume_size": "[8,16,16]",
    "patch_size": "[4,4,4]",
    "clip_size": "[8,16,16]",
    "clip_patch_size": "[4,4,4]",
    "encoder_width": "24",
    "encoder_depth": "2",
    "encoder_heads": "2",
    "decoder_width": "24",
    "decoder_heads": "2",
    "teacher_width": "4",
    "n_labelled": "null",
    "mae_epochs": "4",
    "mae_validate_every": "2",
    "mae_batch_size": "8",
    "mae_warmup_epochs": "1",
    "teacher_epochs": "8",
    "teacher_validate_every": "2",
    "teacher_batch_size": "8",
    "student_epochs": "6",
    "student_validate_every": "2",
    "student_batch_size": "8",
    "student_warmup_epochs": "1",
    "precision": "32-true",
}


@pytest.fixture(scope="session")
def options(tiny_cohort: Path) -> Callable[..., list[str]]:
    """Options of a stage on the tiny cohort: ``options("mae", run_folder, "--trainer.max_epochs", "1")``."""

    def make(stage: str, run_folder: Path, *further: str) -> list[str]:
        return [
            *(
                "--config",
                str(EXPERIMENTS / "pod" / "demo.yaml"),
                "--config",
                str(EXPERIMENTS / "pod" / f"{stage}.yaml"),
            ),
            *("--run", str(run_folder), "--cohort", str(tiny_cohort)),
            *(part for key, value in TINY.items() for part in (f"--profile.{key}", value)),
            *("--trainer.accelerator", "cpu", *further),
        ]

    return make


@pytest.fixture(scope="session")
def pipeline(options: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs mae, teacher and student, fitted and tested one after the other."""
    folder = tmp_path_factory.mktemp("runs")
    run(["fit", *options("mae", folder / "mae")])
    run(["fit", *options("teacher", folder / "teacher")])
    upstream = ("--model.init_args.init_encoder", str(folder / "mae/checkpoints/best.ckpt"))
    upstream += ("--model.init_args.teacher", str(folder / "teacher/checkpoints/best.ckpt"))
    run(["fit", *options("student", folder / "student", *upstream)])
    return folder
