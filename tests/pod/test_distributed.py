"""Two processes on the CPU, through the command line as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

Options = Callable[..., list[str]]
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


def poddistill(*arguments: str) -> str:
    command = str(Path(sys.executable).with_name("poddistill"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([command, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def distributed(options: Options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three stages, the last one also by the recipe, fitted and tested by two processes."""
    folder = tmp_path_factory.mktemp("ddp")
    poddistill("fit", *options("mae", folder / "mae"), *TWO)
    poddistill("fit", *options("teacher", folder / "teacher", "--profile.teacher_batch_size", "4"), *TWO)
    upstream = ("--model.init_args.init_encoder", str(folder / "mae/checkpoints/best.ckpt"))
    upstream += ("--model.init_args.teacher", str(folder / "teacher/checkpoints/best.ckpt"))
    upstream += ("--profile.student_batch_size", "4")
    poddistill("fit", *options("student", folder / "student", *upstream), *TWO)
    recipe = ("--config", str(EXPERIMENTS / "pod/arms/student.yaml"))
    poddistill("fit", *options("student", folder / "recipe", *recipe, *upstream), *TWO)
    return folder


@pytest.mark.parametrize("stage", ["mae", "teacher", "student", "recipe"])
def test_every_stage_runs(distributed: Path, stage: str) -> None:
    assert (distributed / stage / "checkpoints/best.ckpt").is_file()
    metrics = pd.read_csv(distributed / stage / "metrics.csv")
    assert metrics["step"].is_monotonic_increasing, "only one process may write"


def test_each_case_is_predicted_once(distributed: Path, tiny_cohort: Path) -> None:
    manifest = pd.read_csv(tiny_cohort / "mri.csv")
    predictions = pd.read_csv(distributed / "student/predictions.csv")
    assert sorted(predictions["case_id"]) == sorted(manifest.loc[manifest["fold"].isin([0, 1]), "case_id"])


def test_scores_do_not_depend_on_the_number_of_processes(distributed: Path, tmp_path: Path) -> None:
    folder = distributed / "student"
    before = pd.read_csv(folder / "predictions.csv").sort_values("case_id")
    checkpoint = ("--ckpt_path", str(folder / "checkpoints/best.ckpt"))
    one = ("--trainer.devices", "1", "--trainer.strategy", "auto")
    poddistill("test", "--config", str(folder / "config.yaml"), *checkpoint, *one)
    after = pd.read_csv(folder / "predictions.csv").sort_values("case_id")
    assert after["probability"].to_numpy() == pytest.approx(before["probability"].to_numpy(), abs=1e-6)
    logged = pd.read_csv(folder / "metrics.csv")["test/auroc"].dropna()
    assert len(logged) == 2
    assert logged.iloc[0] == pytest.approx(logged.iloc[1], abs=1e-6)


def test_the_loss_that_selects_an_encoder_does_not_depend_on_the_number_of_processes(
    distributed: Path, tiny_cohort: Path
) -> None:
    validated = pd.read_csv(tiny_cohort / "mri.csv")["fold"].eq(1).sum()
    assert validated % 2 == 1, "or no case is dealt to both processes"
    folder = distributed / "mae"
    before = pd.read_csv(folder / "metrics.csv")["val/loss"].dropna()
    checkpoint = ("--ckpt_path", str(folder / "checkpoints/best.ckpt"))
    one = ("--trainer.devices", "1", "--trainer.strategy", "auto")
    poddistill("validate", "--config", str(folder / "config.yaml"), *checkpoint, *one)
    after = pd.read_csv(folder / "metrics.csv")["val/loss"].dropna()
    assert len(after) == len(before) + 1
    assert after.iloc[-1] == pytest.approx(before.min(), rel=1e-5)


def test_what_the_first_process_refuses_is_told_by_all(distributed: Path, options: Options, tmp_path: Path) -> None:
    """Else the second one would wait for it, or end by a broken connection."""
    no_teacher = ("--model.init_args.teacher", str(distributed / "mae/checkpoints/best.ckpt"))
    command = str(Path(sys.executable).with_name("poddistill"))
    result = subprocess.run(
        [command, "fit", *options("student", tmp_path, *no_teacher), *TWO],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 1
    assert told
    assert all(line.endswith("holds no TVUS teacher; give the best.ckpt of the teacher stage") for line in told)
