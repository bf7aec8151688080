"""What a stage refuses: one line that names the file or option, and nothing lost."""

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from data_modules.errors import InputError, UsageError
from poddistill.lightning_cli import run
from poddistill.training.run_folder import held

ROOT = Path(__file__).parents[2]
Options = Callable[..., list[str]]


def test_a_checkpoint_of_another_fold_scores_no_patient_whom_it_was_trained_on(pipeline: Path, tmp_path: Path) -> None:
    folder = pipeline / "student"
    saved = ("--config", str(folder / "config.yaml"), "--ckpt_path", str(folder / "checkpoints/best.ckpt"))
    for verb in ("validate", "test", "predict"):
        with pytest.raises(InputError, match=r"was trained on .*; give the checkpoint of the same --fold, or the --fo"):
            run([verb, *saved, "--fold", "1", "--run", str(tmp_path / "other")])
    assert not list(tmp_path.rglob("predictions*.csv"))


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_nothing_is_scored_by_random_weights(verb: str, pipeline: Path, tmp_path: Path) -> None:
    saved = ("--config", str(pipeline / "student/config.yaml"), "--run", str(tmp_path / "scored"))
    with pytest.raises(
        InputError, match=r"^--ckpt_path is missing, so the weights would be random: give a run's check"
    ):
        run([verb, *saved])
    with pytest.raises(InputError, match=r"mae/checkpoints/best\.ckpt: does not fit the configured network"):
        run([verb, *saved, "--ckpt_path", str(pipeline / "mae/checkpoints/best.ckpt")])
    with pytest.raises(InputError, match=r"nowhere\.ckpt: no such checkpoint"):
        run([verb, *saved, "--ckpt_path", str(tmp_path / "nowhere.ckpt")])


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_the_auto_encoder_has_no_probabilities(verb: str, pipeline: Path, tmp_path: Path) -> None:
    saved = ("--config", str(pipeline / "mae/config.yaml"), "--run", str(tmp_path / "scored"))
    with pytest.raises(InputError, match=rf"^MAEPretrain gives no probabilities to {verb}: train a student$"):
        run([verb, *saved, "--ckpt_path", str(pipeline / "mae/checkpoints/best.ckpt")])


@pytest.mark.parametrize("other", ["cohort", "fold"])
def test_a_runs_own_predictions_are_not_written_over(
    other: str, pipeline: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_cohort, tmp_path / "cohort")
    folder = pipeline / "student"
    saved = ("--config", str(folder / "config.yaml"), "--ckpt_path", str(folder / "checkpoints/best.ckpt"))
    before = (folder / "predictions.csv").read_bytes(), (folder / "metrics.csv").read_bytes()
    asked = ("--cohort", str(tmp_path / "cohort")) if other == "cohort" else ("--fold", "null")
    for verb in ("validate", "test", "predict"):
        with pytest.raises(
            InputError, match=r"^--run .*student: holds a run on .*, fold 0, .*; give another --run for"
        ):
            run([verb, *saved, *asked])
    assert ((folder / "predictions.csv").read_bytes(), (folder / "metrics.csv").read_bytes()) == before
    assert not (folder / "predictions_all.csv").exists()


def test_volumes_of_another_spacing_are_not_scored(pipeline: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    """A network takes them, and sees everything half as large."""
    cohort, checkpoint = tmp_path / "cohort", tmp_path / "trained.ckpt"
    shutil.copytree(tiny_cohort, cohort)
    content = torch.load(pipeline / "student/checkpoints/best.ckpt")
    assert content["image_form"] == {}, "this cohort's records do not tell"
    torch.save({**content, "image_form": {"shape": [8, 16, 16], "spacing": [4.0, 2.0, 2.0]}}, checkpoint)
    first = cohort / pd.read_csv(cohort / "mri.csv")["path"][0]
    saved = ("--config", str(pipeline / "student/config.yaml"), "--ckpt_path", str(checkpoint))
    saved += ("--cohort", str(cohort), "--run", str(tmp_path / "scored"), "--fold", "0")
    for spacing in ([8.0, 4.0, 4.0], [4.0, 2.0, 2.0]):
        record = {"stored": {"shape": [8, 16, 16], "spacing": spacing}}
        first.with_suffix(".json").write_text(json.dumps(record))
        if spacing[0] == 8:
            with pytest.raises(
                InputError, match=r"of spacing 4 2 2, those of .* are of 8 4 4; ingest them with --spacing 4 2 2$"
            ):
                run(["test", *saved])
    run(["test", *saved])
    assert (tmp_path / "scored/predictions.csv").exists()


def test_a_record_of_another_machine_is_scored_on_this_one(pipeline: Path, tmp_path: Path) -> None:
    """Of two nodes, say: nobody waits for the second."""
    config = yaml.safe_load((pipeline / "student/config.yaml").read_text())
    config["trainer"] |= {"num_nodes": 2, "devices": 2, "strategy": "ddp"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    saved = ("--config", str(tmp_path / "config.yaml"), "--run", str(tmp_path / "scored"))
    run(["test", *saved, "--ckpt_path", str(pipeline / "student/checkpoints/best.ckpt")])
    found, known = (pd.read_csv(folder / "predictions.csv") for folder in (tmp_path / "scored", pipeline / "student"))
    pd.testing.assert_frame_equal(found, known)


@pytest.mark.parametrize(("name", "value"), [("accelerator", "mps"), ("devices", "two")])
def test_a_device_that_is_not_there_is_told(name: str, value: str, options: Options, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^trainer: .*; correct what it names, such as --trainer\.accelerator"):
        run(["fit", *options("teacher", tmp_path / "teacher", f"--trainer.{name}", value)])


@pytest.mark.parametrize("joined", [True, False])
def test_a_run_folder_that_cannot_be_is_named(joined: bool, options: Options, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    last = [f"--run={tmp_path}/file/run"] if joined else ["--run", f"{tmp_path}/file/run"]
    with pytest.raises(InputError, match=rf"^--run {tmp_path}/file/run: .*/file: it is a file; give another --run$"):
        run(["fit", *options("mae", tmp_path), *last])


def test_a_stage_is_not_resumed_from_another_stages_checkpoint(
    pipeline: Path, options: Options, tmp_path: Path
) -> None:
    teacher = str(pipeline / "teacher/checkpoints/last.ckpt")
    with pytest.raises(InputError, match=r"teacher/checkpoints/last\.ckpt: does not fit the configured network"):
        run(["fit", *options("mae", tmp_path), "--ckpt_path", teacher])


def test_a_training_is_not_written_over(pipeline: Path, options: Options, tmp_path: Path) -> None:
    folder = pipeline / "student"
    before = {file: file.read_bytes() for file in folder.glob("*.*") if file.is_file()}
    with pytest.raises(
        InputError, match=r"student: holds a training; resume it with --ckpt_path .*/last\.ckpt, remove"
    ):
        run(["fit", *options("student", folder), "--method", "another"])
    copied = shutil.copy(folder / "checkpoints/last.ckpt", tmp_path / "last.ckpt")
    with pytest.raises(
        InputError, match=r"student: holds another training; resume it with --ckpt_path .*/student/checkpoints/last\.ck"
    ):
        run(["fit", *options("student", folder), "--ckpt_path", str(copied)])
    assert {file: file.read_bytes() for file in before} == before


def test_two_trainings_do_not_write_into_one_folder(options: Options, tmp_path: Path) -> None:
    hold = f"from poddistill.training.run_folder import held\nwith held(Path({str(tmp_path)!r})):\n"
    other = f"from pathlib import Path\n{hold}    print(flush=True)\n    input()"
    with subprocess.Popen([sys.executable, "-c", other], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as training:
        assert training.stdin and training.stdout
        training.stdout.readline()
        with pytest.raises(
            InputError, match=rf"^{tmp_path}: another process is training into it; wait until it has fin"
        ):
            run(["fit", *options("mae", tmp_path)])
        assert not any((tmp_path / name).exists() for name in ("metrics.csv", "config.yaml", "checkpoints"))
        training.kill()
    run(["fit", *options("mae", tmp_path)])
    assert (tmp_path / "checkpoints/best.ckpt").exists()


def test_a_folder_without_locks_is_trained_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with held(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_a_profile_value_that_nothing_would_come_of_is_refused(
    pipeline: Path, options: Options, tmp_path: Path
) -> None:
    with pytest.raises(
        UsageError, match=r"--profile\.student_epoch: the profile has no such key; did you mean student_e"
    ):
        run(["fit", *options("student", tmp_path), "--profile.student_epoch", "2"])
    saved = ("--config", str(pipeline / "student/config.yaml"), "--run", str(tmp_path / "again"))
    with pytest.raises(
        UsageError, match=r"--profile\.student_epochs: .*config\.yaml is a run's record, in which the pro"
    ):
        run(["fit", *saved, "--profile.student_epochs=2"])


def test_a_stage_of_another_fold_is_refused(pipeline: Path, options: Options, tmp_path: Path) -> None:
    upstream = ("--model.init_args.init_encoder", str(pipeline / "mae/checkpoints/best.ckpt"))
    with pytest.raises(InputError, match=r"mae/checkpoints/best\.ckpt: was trained on \d+ of the \d+ patients whom"):
        run(["fit", *options("student", tmp_path, *upstream, "--fold", "2")])


def test_another_folds_training_is_not_resumed(pipeline: Path, options: Options, tmp_path: Path) -> None:
    """It has seen those who are held out here."""
    last = ("--ckpt_path", str(pipeline / "teacher/checkpoints/last.ckpt"))
    with pytest.raises(
        InputError, match=r"teacher/checkpoints/last\.ckpt: was trained on \d+ of the \d+ patients whom"
    ):
        run(["fit", *options("teacher", tmp_path, "--fold", "1"), *last])
    assert not (tmp_path / "checkpoints").exists()


def test_a_test_fold_without_labels_is_refused_before_the_training(
    options: Options, tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cohort = tmp_path / "cohort"
    shutil.copytree(tiny_cohort, cohort)
    clips = pd.read_csv(cohort / "tvus.csv")
    tested = clips["fold"].eq(0)
    clips.assign(label=clips["label"].mask(tested)).to_csv(cohort / "tvus.csv", index=False)
    with pytest.raises(InputError, match=r"^--fold 0: .*/cohort has no labelled case in it to test on; choose another"):
        run(["fit", *options("teacher", tmp_path / "run", "--cohort", str(cohort))])
    assert not (tmp_path / "run/checkpoints").exists()
    clips.assign(label=clips["label"].mask(tested, 0)).to_csv(cohort / "tvus.csv", index=False)
    run(["fit", *options("teacher", tmp_path / "run", "--cohort", str(cohort), "--profile.teacher_epochs", "2")])
    assert f"0 of {tested.sum()} test cases are obliterated" in capsys.readouterr().out


def test_a_volume_that_has_no_finite_output_is_named(options: Options, tiny_cohort: Path, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    shutil.copytree(tiny_cohort, cohort)
    volumes = pd.read_csv(cohort / "mri.csv")
    validated = volumes.loc[volumes["fold"].eq(1) & volumes["label"].notna(), "path"].iloc[0]
    image = np.load(cohort / validated)
    image[0, 0, 0] = np.nan
    np.save(cohort / validated, image)
    with pytest.raises(InputError, match=rf"^{validated}: no finite output for this case; ingest the cohort again"):
        run(["fit", *options("student", tmp_path / "run", "--cohort", str(cohort))])
    assert not list((tmp_path / "run").rglob("best.ckpt"))


def test_a_damaged_volume_is_told_in_one_line_by_a_loaders_process_too(
    options: Options, tiny_cohort: Path, tmp_path: Path
) -> None:
    cohort = tmp_path / "cohort"
    shutil.copytree(tiny_cohort, cohort)
    for file in sorted((cohort / "mri").rglob("*.npy"))[1:]:
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"^\S+\.npy: not a readable array; ingest the cohort again$"):
        run(["fit", *options("mae", tmp_path / "run", "--cohort", str(cohort), "--profile.workers", "1")])


def test_other_options_of_the_optimiser_are_not_resumed_with(pipeline: Path, options: Options, tmp_path: Path) -> None:
    last = ("--ckpt_path", str(pipeline / "student/checkpoints/last.ckpt"))
    further = ("--model.init_args.optimisation.init_args.layer_decay", "1.0", "--profile.student_epochs", "8")
    with pytest.raises(InputError, match=r"last\.ckpt: its optimiser had other groups of weights; resume with the opt"):
        run(["fit", *options("student", tmp_path, *last, *further)])


def test_a_validation_fold_of_one_class_is_refused(options: Options, tiny_cohort: Path, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    shutil.copytree(tiny_cohort, cohort)
    volumes = pd.read_csv(cohort / "mri.csv")
    volumes.loc[volumes["fold"].eq(1), "label"] = 0
    volumes.to_csv(cohort / "mri.csv", index=False)
    with pytest.raises(InputError, match=r"^0 of the \d+ labelled validation cases are obliterated, .* another --fold"):
        run(["fit", *options("student", tmp_path / "run", "--cohort", str(cohort))])


def test_a_control_of_outputs_that_nobody_reads_is_refused(pipeline: Path, options: Options, tmp_path: Path) -> None:
    overlays = [f"experiments/pod/{name}.yaml" for name in ("arms/student-covariates-labels", "controls/dealt")]
    configs = [part for name in overlays for part in ("--config", str(ROOT / name))]
    with pytest.raises(InputError, match="does not read that: leave the control out"):
        run(["fit", *options("student", tmp_path / "student", *configs, "--run", str(pipeline / "student-dealt"))])


def test_a_training_that_comes_apart_ends_and_keeps_nothing_of_it(options: Options, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"came apart by epoch 2: .* is not finite; lower optimisation\.lr$"):
        run(["fit", *options("teacher", tmp_path, "--profile.teacher_lr", "1e30")])
    assert not list(tmp_path.glob("checkpoints/*.ckpt"))


@pytest.mark.parametrize(
    ("stage", "further", "message"),
    [
        ("student", ("--model.init_args.init_encoder", "{runs}/none.ckpt"), "none.ckpt: no such checkpoint"),
        ("student", ("--model.init_args.init_encoder", "{runs}/teacher/checkpoints/best.ckpt"), "holds no MAE encoder"),
        (
            "student",
            ("--model.init_args.init_encoder", "{runs}/mae/checkpoints/best.ckpt", "--profile.encoder_width", "48"),
            r"does not fit the configured network: .* is \(24,\) in the file and \(48,\)",
        ),
        (
            "student",
            ("--model.init_args.init_encoder", "{runs}/mae/checkpoints/best.ckpt", "--profile.encoder_heads", "3"),
            "does not fit the configured network: heads is 2 in the file and 3 in the configuration",
        ),
        ("student", ("--model.init_args.teacher", "{runs}/mae/checkpoints/best.ckpt"), "holds no TVUS teacher"),
        ("student", ("--model.init_args.teacher", "{runs}/mae/config.yaml"), "not a readable checkpoint"),
        ("mae", ("--cohort", "{runs}/nowhere"), "no such file; make it with `poddistill ingest mri"),
        ("mae", ("--fold", "9"), "fold"),
        ("mae", ("--profile.patch_size", "[3,3,3]"), "does not divide image_size"),
        ("mae", ("--profile.mae_batch_size", "0"), "^batch_size of mri is 0: give at least 1"),
        ("teacher", ("--profile.workers", "-1"), "^num_workers of tvus is -1: give at least 0"),
        ("mae", ("--profile.mae_epochs", "0"), "^trainer.max_epochs is 0: "),
        ("mae", ("--profile.mae_accumulate", "0"), "^trainer.accumulate_grad_batches is 0: give at least 1"),
        ("mae", ("--profile.mae_validate_every", "0"), "^trainer.check_val_every_n_epoch is 0: give at least 1"),
        ("student", ("--profile.student_ema", "1.5"), r"^decay is 1.5: give a part in \(0, 1\)"),
        ("mae", ("--seed_everything", "-1"), "^--seed_everything: -1 is not in bounds"),
        ("mae", ("--profile.volume_size", "[8,16,32]"), "volumes of .* meet an encoder with image_size"),
    ],
)
def test_bad_input_is_told_in_one_line(
    stage: str, further: tuple[str, ...], message: str, pipeline: Path, options: Options, tmp_path: Path
) -> None:
    filled = [part.format(runs=pipeline) for part in further]
    with pytest.raises(InputError, match=message) as raised:
        run(["fit", *options(stage, tmp_path, *filled)])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (("--trainer.max_epochs", "many"), "trainer.max_epochs"),
        (("--model.init_args.nework", "1"), "'nework' is not accepted"),
        (("--nonsense", "1"), "nonsense"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_wrong_options_are_told_in_one_line(
    further: tuple[str, ...], message: str, options: Options, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        run(["fit", *options("mae", tmp_path, *further)])
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300
