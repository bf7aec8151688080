"""Every arm and control that is shipped, trained for a moment on the tiny cohort."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data_modules.errors import InputError, UsageError
from poddistill.lightning_cli import build, run

POD = Path(__file__).parents[2] / "experiments" / "pod"
ARMS = sorted(file.stem for file in (POD / "arms").glob("*.yaml"))
CONTROLS = sorted(file.stem for file in (POD / "controls").glob("*.yaml"))
SMALLER = {"student-densenet": ("--model.init_args.encoder.init_args.block_config", "[2,2]")}
Options = Callable[..., list[str]]


@pytest.fixture(scope="session")
def runs(pipeline: Path, options: Options) -> Path:
    """The pipeline's runs, and beside them all that an arm or a control builds on."""
    for arm in (name for name in ARMS if name.startswith("teacher-")):
        run(["fit", *options("teacher", pipeline / arm, "--config", str(POD / "arms" / f"{arm}.yaml"))])
    first = fit(pipeline, options, "student-mae")
    run(["predict", "--config", str(first / "config.yaml"), "--ckpt_path", str(first / "checkpoints/best.ckpt")])
    return pipeline


def fit(runs: Path, options: Options, arm: str, *controls: str) -> Path:
    folder = runs / "--".join([arm, *controls])
    files = [POD / "arms" / f"{arm}.yaml", *(POD / "controls" / f"{name}.yaml" for name in controls)]
    configs = [part for file in files for part in ("--config", str(file))]
    small = ("--profile.student_epochs", "2", "--profile.n_labelled", "16", *SMALLER.get(arm, ()))
    run(["fit", *options("student", folder, *configs, *small)])
    return folder


@pytest.mark.parametrize("arm", [name for name in ARMS if name.startswith("student-")])
def test_an_arm_trains_and_predicts(arm: str, runs: Path, options: Options) -> None:
    folder = fit(runs, options, arm)
    metrics = pd.read_csv(folder / "metrics.csv")
    assert np.isfinite(metrics["train/loss"].dropna()).all()
    assert pd.read_csv(folder / "predictions.csv")["probability"].between(0, 1).all()


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_takes_the_teachers_place(control: str, runs: Path, options: Options) -> None:
    arm = "student-covariates" if control in ("patients", "own", "own-ridge", "compute", "scratch") else "student-kd"
    plain, controlled = (pd.read_csv(fit(runs, options, arm, *given) / "metrics.csv") for given in ((), (control,)))
    if control == "compute":
        assert (plain["train/loss"].count(), controlled["train/loss"].count()) == (
            2,
            6,
        )  # epochs: 8 labelled and 16 unlabelled in a batch
        assert "train/distillation" not in controlled
    else:
        losses = controlled["train/distillation"].dropna()
        assert np.isfinite(losses).all()
        assert losses.iloc[0] != plain["train/distillation"].dropna().iloc[0]


def test_an_untrained_teacher_keeps_its_first_weights(runs: Path, options: Options, tmp_path: Path) -> None:
    first = build(options("teacher", tmp_path)).model
    trained = torch.load(runs / "teacher-untrained/checkpoints/best.ckpt", weights_only=False)["state_dict"]
    for name, weight in first.named_parameters():
        torch.testing.assert_close(trained[name], weight, rtol=0, atol=1e-6)


def test_a_transfer_that_meets_no_unlabelled_volume_is_told(runs: Path, options: Options, tmp_path: Path) -> None:
    files = ("--config", str(POD / "arms/student-covariates.yaml"), "--config", str(POD / "controls/own.yaml"))
    none = ("--data.init_args.mri.init_args.unlabelled_batch_size", "0", "--model.init_args.init_encoder", "null")
    cli = build(options("student", tmp_path, *files, *none))
    with pytest.raises(InputError, match=r"CovariateLikelihood learns from unlabelled volumes.*unlabelled_batch_size"):
        cli.trainer.fit(cli.model, cli.datamodule)


def test_a_control_of_another_arm_is_told_in_one_line(options: Options, tmp_path: Path) -> None:
    files = ("--config", str(POD / "arms/student-sorted.yaml"), "--config", str(POD / "controls/patients.yaml"))
    with pytest.raises(UsageError, match=r"^[^\n]*shuffled[^\n]*not accepted[^\n]*$"):
        build(options("student", tmp_path, *files))


def test_the_recipe_takes_the_covariates_of_the_profile(runs: Path, options: Options) -> None:
    recipe = ("--config", str(POD / "arms/student.yaml"))
    cli = build(options("student", runs / "two", *recipe, "--profile.covariates", "[age, pain]"))
    assert cli.datamodule.covariates == ["age", "pain"]
    cli = build(options("student", runs / "none", *recipe, "--profile.covariates", "[]"))
    with pytest.raises(InputError, match=r"^there are no covariates: [^\n]*profile\.covariates[^\n]*$"):
        cli.trainer.fit(cli.model, cli.datamodule)
