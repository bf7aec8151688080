"""Every arm and control that is shipped, trained for a moment on the tiny cohort."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from data_modules.errors import InputError, UsageError
from poddistill.lightning_cli import build, run
from poddistill.training.checkpoints import check_fit, read_checkpoint

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
    if not (folder / "checkpoints/best.ckpt").exists():
        run(["fit", *arguments(folder, options, arm, *controls)])
    return folder


def arguments(folder: Path, options: Options, arm: str, *controls: str) -> list[str]:
    files = [POD / "arms" / f"{arm}.yaml", *(POD / "controls" / f"{name}.yaml" for name in controls)]
    configs = [part for file in files for part in ("--config", str(file))]
    small = ("--profile.student_epochs", "2", "--profile.n_labelled", "16", *SMALLER.get(arm, ()))
    return options("student", folder, *configs, *small)


@pytest.mark.parametrize("arm", [name for name in ARMS if name.startswith("student-")])
def test_an_arm_trains_and_predicts(arm: str, runs: Path, options: Options) -> None:
    folder = fit(runs, options, arm)
    metrics = pd.read_csv(folder / "metrics.csv")
    assert np.isfinite(metrics["train/loss"].dropna()).all()
    assert pd.read_csv(folder / "predictions.csv")["probability"].between(0, 1).all()
    for name in ("best", "last"):  # scored elsewhere, resumed
        checkpoint = folder / f"checkpoints/{name}.ckpt"
        check_fit(build(arguments(folder, options, arm)).model, read_checkpoint(checkpoint)["state_dict"], checkpoint)


def test_a_mean_teacher_is_scored_again_and_resumed(runs: Path, options: Options, tmp_path: Path) -> None:
    folder = fit(runs, options, "student-mean-teacher")
    config, checkpoints = ("--config", str(folder / "config.yaml")), folder / "checkpoints"
    run(["test", *config, "--ckpt_path", str(checkpoints / "best.ckpt"), "--run", str(tmp_path / "again")])
    pd.testing.assert_frame_equal(*(pd.read_csv(at / "predictions.csv") for at in (folder, tmp_path / "again")))
    resumed = ("--run", str(tmp_path / "on"), "--ckpt_path", str(checkpoints / "last.ckpt"))
    run(["fit", *config, *resumed, "--trainer.max_epochs", "3"])
    assert pd.read_csv(tmp_path / "on/metrics.csv")["train/loss"].count() == 1


@pytest.mark.parametrize("arm", ["student-ensembling", "student-quantile"])
def test_what_a_transfer_remembers_is_scored_again_and_resumed_without_an_average_of_the_weights(
    arm: str, runs: Path, options: Options, tmp_path: Path
) -> None:
    config = yaml.safe_load((fit(runs, options, arm) / "config.yaml").read_text())
    callbacks = config["trainer"]["callbacks"]
    config["trainer"]["callbacks"] = [each for each in callbacks if not each["class_path"].endswith(".WeightEMA")]
    assert len(config["trainer"]["callbacks"]) < len(callbacks)
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(config))
    saved, checkpoints = ("--config", str(tmp_path / "plain.yaml")), tmp_path / "run/checkpoints"
    run(["fit", *saved, "--run", str(tmp_path / "run")])
    state = read_checkpoint(checkpoints / "last.ckpt")["state_dict"]["transfer._extra_state"]
    assert len(state)
    run(["test", *saved, "--ckpt_path", str(checkpoints / "best.ckpt"), "--run", str(tmp_path / "again")])
    pd.testing.assert_frame_equal(*(pd.read_csv(tmp_path / at / "predictions.csv") for at in ("run", "again")))
    resumed = ("--run", str(tmp_path / "on"), "--ckpt_path", str(checkpoints / "last.ckpt"))
    run(["fit", *saved, *resumed, "--trainer.max_epochs", "3"])
    assert pd.read_csv(tmp_path / "on/metrics.csv")["train/loss"].count() == 1


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


UNLABELLED = [
    name
    for name in ARMS
    if "unlabelled_batch_size: ${profile.student_unlabelled}" in (POD / "arms" / f"{name}.yaml").read_text()
]


def overlay(*parts: str) -> list[str]:
    """An arm and its controls, from scratch, for no pre-trained encoder is needed to be built or refused."""
    folders = ["arms", *["controls"] * (len(parts) - 1)]
    files = [str(POD / folder / f"{name}.yaml") for folder, name in zip(folders, parts, strict=True)]
    return [*(word for file in files for word in ("--config", file)), "--model.init_args.init_encoder", "null"]


@pytest.mark.parametrize(
    ("arm", "control", "words"),
    [
        ("student-mae", "constant", "control is set, but there is no teacher"),
        ("student-self-training", "constant", "control is set, but there is no teacher"),
        ("student-mean-teacher", "gaussian", "control is set, but there is no teacher"),
        ("student-mae", "shuffled", "control_teacher is set, but there is no teacher"),
        ("student-ensembling", "untrained", "control_teacher is set, but there is no teacher"),
        ("student-covariates-labels", "shuffled", "control_teacher replaces what the teacher says of clips"),
    ],
)
def test_a_control_that_would_change_nothing_is_refused(
    arm: str, control: str, words: str, options: Options, tmp_path: Path
) -> None:
    cli = build(options("student", tmp_path, *overlay(arm, control), "--profile.covariates", "[age, pain]"))
    with pytest.raises(InputError, match=rf"^model\.{words}[^\n]*: leave the control out[^\n]*$"):
        cli.trainer.fit(cli.model, cli.datamodule)


@pytest.mark.parametrize("arm", ["student-covariates-both", "student-covariates-order"])
@pytest.mark.parametrize("control", ["dealt", "gaussian", "shuffled"])
def test_a_control_of_outputs_that_labels_take_the_place_of_is_refused(
    arm: str, control: str, runs: Path, options: Options, tmp_path: Path
) -> None:
    upstream = ("--model.init_args.teacher", str(runs / "teacher/checkpoints/best.ckpt"))
    if control == "shuffled":
        upstream += ("--model.init_args.control_teacher", str(runs / "teacher-shuffled/checkpoints/best.ckpt"))
    words = options("student", tmp_path, *overlay(arm, control), *upstream, "--profile.covariates", "[age, pain]")
    cli = build(words)
    with pytest.raises(InputError, match=r"^every clip has a label, [^\n]*: leave it out, or set n_labelled_clips$"):
        cli.trainer.fit(cli.model, cli.datamodule)


@pytest.mark.parametrize("arm", ["student-mean-teacher", "student-self-training"])
def test_a_control_of_a_teacher_that_is_not_read_is_refused(arm: str, options: Options, tmp_path: Path) -> None:
    teacher = ("--model.init_args.teacher", str(tmp_path / "teacher.ckpt"))
    cli = build(options("student", tmp_path, *overlay(arm, "constant"), *teacher))
    with pytest.raises(InputError, match=r"^model\.control replaces[^\n]*does not read that: leave the control out$"):
        cli.trainer.fit(cli.model, cli.datamodule)


@pytest.mark.parametrize("arm", ["student-kd", *UNLABELLED])
def test_the_control_compute_leaves_the_labels_alone(arm: str, options: Options, tmp_path: Path) -> None:
    model = build(options("student", tmp_path, *overlay(arm, "compute"))).model
    assert (model.transfer, model.teacher) == (None, None)


@pytest.mark.parametrize(
    ("n_labelled", "batch_size", "in_a_batch", "unlabelled", "devices"),
    [
        ("160", "20", 20, 16, 1),
        ("10", "20", 10, 16, 1),
        ("20", "20", 20, 30, 1),
        ("20", "20", 10, 15, 2),
        ("null", "8", 8, 4, 1),
    ],
)
def test_the_control_compute_passes_as_many_volumes(
    n_labelled: str, batch_size: str, in_a_batch: int, unlabelled: int, devices: int, options: Options, tmp_path: Path
) -> None:
    sizes = {"n_labelled": n_labelled, "student_batch_size": batch_size, "student_unlabelled": str(unlabelled)}
    sizes |= {"student_epochs": "400", "student_validate_every": "200"}
    words = [part for key, value in sizes.items() for part in (f"--profile.{key}", value)]
    words += ["--trainer.accelerator", "cpu", "--trainer.devices", str(devices)]
    trainer = build(options("student", tmp_path, *overlay("student-mean-teacher", "compute"), *words)).trainer
    assert trainer.max_epochs * in_a_batch == 400 * (in_a_batch + unlabelled)
    assert trainer.check_val_every_n_epoch * in_a_batch == 200 * (in_a_batch + unlabelled)


def test_a_teacher_of_shuffled_labels_is_not_selected_by_true_ones(runs: Path) -> None:
    folder = runs / "teacher-shuffled"
    assert pd.read_csv(folder / "metrics.csv")["val/auroc"].count() == 1
    states = [
        torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=False)["state_dict"] for name in ("best", "last")
    ]
    for name, weight in states[1].items():
        assert torch.equal(states[0][name], weight), name


def test_a_probe_leaves_the_encoder_as_it_was(runs: Path, options: Options) -> None:
    checkpoint = torch.load(fit(runs, options, "student-probe") / "checkpoints/last.ckpt", weights_only=False)
    trained, average = checkpoint["current_model_state"], checkpoint["state_dict"]
    pretrained = torch.load(runs / "mae/checkpoints/best.ckpt", weights_only=False)["state_dict"]
    encoder = [name for name in trained if name.startswith("encoder.")]
    assert "encoder.norm.weight" in encoder
    for name in encoder:
        assert torch.equal(trained[name], pretrained[f"network.{name}"]), name
        torch.testing.assert_close(average[name], trained[name], rtol=1e-5, atol=1e-6)  # a sum of equal ones rounds
    assert trained["head.bias"] != 0  # where it starts
    assert len(checkpoint["optimizer_states"][0]["state"]) == 2, "the head's weight and bias alone are trained"


def test_a_frozen_encoder_computes_as_in_evaluation(options: Options, tmp_path: Path) -> None:
    frozen, free = (
        build(options("student", tmp_path, *overlay(arm))).model for arm in ("student-probe", "student-scratch")
    )
    frozen.train()
    free.train()
    assert [frozen.training, frozen.encoder.training, frozen.head.training] == [True, False, True]
    assert not any(parameter.requires_grad for parameter in frozen.encoder.parameters())
    assert all(module.training for module in free.modules())
    assert all(parameter.requires_grad for parameter in free.parameters())
    assert frozen.state_dict().keys() == free.state_dict().keys()


def test_an_untrained_teacher_keeps_its_first_weights(runs: Path, options: Options, tmp_path: Path) -> None:
    first = build(options("teacher", tmp_path)).model
    trained = torch.load(runs / "teacher-untrained/checkpoints/best.ckpt", weights_only=False)["state_dict"]
    for name, weight in first.named_parameters():
        torch.testing.assert_close(trained[name], weight, rtol=0, atol=1e-6)


def test_a_transfer_that_meets_no_unlabelled_volume_is_told(runs: Path, options: Options, tmp_path: Path) -> None:
    files = ("--config", str(POD / "arms/student-covariates.yaml"), "--config", str(POD / "controls/own.yaml"))
    none = ("--data.init_args.mri.init_args.unlabelled_batch_size", "0", "--model.init_args.init_encoder", "null")
    teacher = ("--model.init_args.teacher", str(runs / "teacher/checkpoints/best.ckpt"))
    cli = build(options("student", tmp_path, *files, *none, *teacher))
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


def test_the_recipe_learns_from_what_the_teacher_says_of_clips_without_label(runs: Path, options: Options) -> None:
    few = ("--profile.n_labelled_clips", "4", "--profile.student_epochs", "2", "--profile.n_labelled", "16")
    teacher = runs / "teacher-few-clips"
    run(["fit", *options("teacher", teacher, *few)])
    taught = (*few, "--model.init_args.teacher", str(teacher / "checkpoints/best.ckpt"))
    sizes = {}
    for arm in ("student", "student-kd"):
        config = ("--config", str(POD / "arms" / f"{arm}.yaml"))
        for other in ((*few,), (*taught, "--seed_everything", "1"), (*taught, "--profile.n_labelled_clips", "6")):
            cli = build(options("student", runs / f"{arm}-few-clips", *config, *other))
            with pytest.raises(InputError, match=r"was not trained on the [46] labelled clips that the student knows"):
                cli.trainer.fit(cli.model, cli.datamodule)
        cli = build(options("student", runs / f"{arm}-few-clips", *config, *taught))
        cli.trainer.fit(cli.model, cli.datamodule)
        bank, split = cli.model.bank, cli.datamodule.tvus.manifest["split"]
        assert int((~bank.labels.isnan()).sum()) == split.eq("train").sum() == 4
        assert bank.logits.isfinite().all()
        sizes[arm] = len(bank.labels)
    assert sizes["student"] == split.isin(["train", "unlabelled"]).sum() > 4
    assert sizes["student-kd"] == 4, "pairs by label need one"


@pytest.mark.parametrize("arm", ["student-anchors", "student-anchored-features"])
def test_anchors_are_as_many_patients_with_both_examinations_as_the_profile_says(
    arm: str, runs: Path, options: Options, tiny_cohort: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_cohort, tmp_path / "cohort")
    mri, tvus = (pd.read_csv(tmp_path / "cohort" / f"{name}.csv") for name in ("mri", "tvus"))
    assert mri["fold"][:12].eq(tvus["fold"][:12]).all()
    tvus.loc[:11, "patient_id"] = mri["patient_id"][:12]
    tvus.to_csv(tmp_path / "cohort/tvus.csv", index=False)
    given = [*arguments(runs / f"{arm}-few", options, arm), "--cohort", str(tmp_path / "cohort")]
    cli = build([*given, "--profile.n_both", "4"])
    cli.trainer.fit(cli.model, cli.datamodule)
    known = cli.datamodule.manifest["patient_id"][cli.model.transfer.rows.cpu().numpy() >= 0]
    assert set(known) == cli.datamodule.patients_with_both()
    assert known.nunique() == 4
    with pytest.raises(
        InputError, match=r"^[^\n]*n_both is 12, but 6 patients who train have an MRI and a TVUS clip[^\n]*$"
    ):
        build([*given, "--profile.n_both", "12"])
