import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from sklearn.metrics import roc_auc_score

from data_modules.errors import InputError
from poddistill import lightning_cli
from poddistill.cli import main
from poddistill.evaluation.compare import compare
from poddistill.lightning_cli import StageCLI, run
from poddistill.pod.mae_pretrain import MAEPretrain
from poddistill.pod.student_kd import StudentKD

ROOT = Path(__file__).parents[2]
Options = Callable[..., list[str]]


def build(arguments: list[str]) -> StageCLI:
    """A stage that logs nothing to W&B."""
    cli = lightning_cli.build(arguments)
    cli.trainer.loggers = cli.trainer.loggers[:1]
    return cli


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


@pytest.mark.parametrize("stage", ["mae", "teacher", "student"])
def test_a_run_folder_holds_what_the_pipeline_builds_on(pipeline: Path, stage: str) -> None:
    folder = pipeline / stage
    assert {"best.ckpt", "last.ckpt"} <= {file.name for file in (folder / "checkpoints").iterdir()}
    assert yaml.safe_load((folder / "config.yaml").read_text())["run"] == str(folder)
    assert (folder / "config.yaml").read_text().startswith("# pytorch_lightning==")
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["train/loss"].notna().any()
    assert metrics["val/loss"].notna().any()
    assert list((folder / "wandb").glob("offline-run-*"))


def test_predictions_are_each_labelled_case_of_validation_and_test_once(pipeline: Path, tiny_cohort: Path) -> None:
    predictions = pd.read_csv(pipeline / "student/predictions.csv")
    manifest = pd.read_csv(tiny_cohort / "mri.csv").set_index("case_id")
    assert list(predictions) == ["case_id", "patient_id", "split", "label", "probability"]
    expected = manifest[manifest["fold"].isin([0, 1])]
    assert set(predictions["case_id"]) == set(expected.index)
    assert predictions["case_id"].is_unique
    assert (predictions["label"].to_numpy() == expected.loc[predictions["case_id"], "label"].to_numpy()).all()
    assert set(predictions.loc[predictions["split"] == "test", "case_id"]) == set(expected.index[expected["fold"] == 0])
    assert predictions["probability"].between(0, 1).all()


def test_the_logged_test_auroc_is_that_of_the_predictions(pipeline: Path) -> None:
    predictions = pd.read_csv(pipeline / "teacher/predictions.csv").query("split == 'test'")
    logged = pd.read_csv(pipeline / "teacher/metrics.csv")["test/auroc"].dropna().item()
    assert logged == pytest.approx(roc_auc_score(predictions["label"], predictions["probability"]), abs=1e-6)


def test_pictures_are_drawn(pipeline: Path) -> None:
    for picture in ("mae/figures/mae-reconstructions.png", "teacher/figures/clip-filmstrips.png"):
        assert (pipeline / picture).read_bytes().startswith(b"\x89PNG")


def test_predict_scores_every_case_with_the_saved_configuration(pipeline: Path, tiny_cohort: Path) -> None:
    folder = pipeline / "student"
    before = (folder / "config.yaml").read_bytes()
    run(["predict", "--config", str(folder / "config.yaml"), "--ckpt_path", str(folder / "checkpoints/best.ckpt")])
    everything = pd.read_csv(folder / "predictions_all.csv").set_index("case_id")
    assert set(everything.index) == set(pd.read_csv(tiny_cohort / "mri.csv")["case_id"])
    tested = pd.read_csv(folder / "predictions.csv").set_index("case_id")
    assert everything.loc[tested.index, "probability"].to_numpy() == pytest.approx(tested["probability"].to_numpy())
    assert (folder / "config.yaml").read_bytes() == before, "scoring a run must leave its record alone"


def test_a_saved_configuration_scores_another_cohort_into_another_folder(
    pipeline: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_cohort, tmp_path / "cohort")
    manifest = pd.read_csv(tmp_path / "cohort/mri.csv")
    fewer = manifest.drop(manifest.index[manifest["label"].isna()][:3])
    fewer.to_csv(tmp_path / "cohort/mri.csv", index=False)
    folder = pipeline / "student"
    saved = ("--config", str(folder / "config.yaml"), "--ckpt_path", str(folder / "checkpoints/best.ckpt"))
    before = (folder / "predictions.csv").read_bytes()
    run(["test", *saved, "--cohort", str(tmp_path / "cohort"), "--run", str(tmp_path / "scored")])
    run(["predict", *saved, "--cohort", str(tmp_path / "cohort"), "--run", str(tmp_path / "scored")])
    assert (folder / "predictions.csv").read_bytes() == before
    assert (tmp_path / "scored/predictions.csv").is_file()
    assert set(pd.read_csv(tmp_path / "scored/predictions_all.csv")["case_id"]) == set(fewer["case_id"])
    external = (*saved, "--cohort", str(tmp_path / "cohort"), "--run", str(tmp_path / "external"), "--fold", "null")
    for verb in ("test", "predict"):
        with pytest.raises(InputError, match=r"best\.ckpt: was trained on \d+ of the \d+ patients"):
            run([verb, *external])
    others = fewer.assign(patient_id="other-" + fewer["patient_id"])
    others.to_csv(tmp_path / "cohort/mri.csv", index=False)
    run(["test", *external])
    tested = pd.read_csv(tmp_path / "external/predictions.csv")
    assert set(tested["case_id"]) == set(fewer.loc[fewer["label"].notna(), "case_id"])
    assert set(tested["split"]) == {"test"}
    assert compare([tmp_path / "external"], tmp_path / "compared", resamples=10).table["n"].item() == len(tested)
    for verb in ("fit", "validate"):
        with pytest.raises(InputError, match="fold is null, which leaves every labelled case to the test"):
            run([verb, *external[: 2 if verb == "fit" else 4], *external[4:]])


def test_a_student_is_used_where_there_is_only_mri(pipeline: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    """Of patients without ultrasound and covariates; and with neither label nor fold, too."""
    cohort, folder = tmp_path / "cohort", tmp_path / "student"
    shutil.copytree(tiny_cohort, cohort)
    shutil.copytree(pipeline / "student", folder)
    (cohort / "tvus.csv").unlink()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["init_args"]["covariates"] = ["age"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    volumes = pd.read_csv(cohort / "mri.csv").drop(columns=["age"], errors="ignore")
    saved = ("--config", str(folder / "config.yaml"), "--ckpt_path", str(folder / "checkpoints/best.ckpt"))
    scored = {}
    for name, table in {"labelled": volumes, "unlabelled": volumes.assign(label=None, fold=None)}.items():
        table.to_csv(cohort / "mri.csv", index=False)
        run(["predict", *saved, "--cohort", str(cohort), "--run", str(tmp_path / name)])
        scored[name] = pd.read_csv(tmp_path / name / "predictions_all.csv").set_index("case_id")["probability"]
    assert set(scored["unlabelled"].index) == set(volumes["case_id"])
    pd.testing.assert_series_equal(scored["unlabelled"].sort_index(), scored["labelled"].sort_index(), atol=1e-6)
    with pytest.raises(InputError, match="no labelled mri case is in the val part of fold 0; ingest more labels"):
        run(["test", *saved, "--cohort", str(cohort), "--run", str(tmp_path / "tested")])
    with pytest.raises(InputError, match=r"tvus\.csv: no such file"):  # to train one, the rest is needed
        run(["fit", "--config", str(folder / "config.yaml"), "--cohort", str(cohort), "--run", str(tmp_path / "fit")])


@pytest.mark.parametrize(
    ("stage", "further"),
    [("student", ()), ("joint-student", ("--config", str(ROOT / "experiments/pod/arms/joint-student.yaml")))],
)
def test_what_processes_share_of_a_step_lies_where_they_train(
    options: Options, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, further: tuple[str]
) -> None:
    """A tensor that is made on the host stays there when it is logged, and GPUs cannot sum it up."""
    logged: dict[str, object] = {}
    log_dict = LightningModule.log_dict

    def spy(self: LightningModule, values: dict[str, object], **how: object) -> None:
        logged.update(values if how.get("sync_dist") else {})
        log_dict(self, values, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(LightningModule, "log_dict", spy)
    upstream = {
        "student": ("--model.init_args.teacher", str(pipeline / "teacher/checkpoints/best.ckpt")),
        "joint-student": ("--model.init_args.init_encoder", "null"),
    }[stage]
    run(["fit", *options(stage, tmp_path / stage, *further, *upstream), "--profile.student_epochs", "1"])
    train = {name: value for name, value in logged.items() if name.startswith("train/")}
    assert len(train) == 4
    assert all(isinstance(value, float) or value.requires_grad for value in train.values())


def test_the_students_loss_is_the_papers(options: Options, pipeline: Path, tmp_path: Path) -> None:
    upstream = ("--model.init_args.teacher", str(pipeline / "teacher/checkpoints/best.ckpt"))
    cli = build(options("student", tmp_path, *upstream, "--profile.student_alpha", "0.7"))
    seen: list[tuple[int, dict[str, float]]] = []

    class Watch(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append((trainer.current_epoch, {k: float(v) for k, v in trainer.callback_metrics.items()}))

    cli.trainer.callbacks.append(Watch())
    cli.trainer.fit(cli.model, cli.datamodule)
    assert len(seen) == 6
    for epoch, metrics in seen:
        weight = 0.7**epoch
        assert metrics["train/distillation_weight"] == pytest.approx(weight)
        mixed = weight * metrics["train/distillation"] + (1 - weight) * metrics["train/labels"]
        assert metrics["train/loss"] == pytest.approx(mixed, rel=1e-4)


def test_baselines_are_the_student_without_its_options(options: Options, tmp_path: Path) -> None:
    cli = build(options("student", tmp_path, "--profile.student_epochs", "2"))
    cli.trainer.fit(cli.model, cli.datamodule)
    assert isinstance(cli.model, StudentKD)
    assert cli.model.bank is None
    assert "train/distillation" not in cli.trainer.callback_metrics
    assert cli.trainer.callback_metrics["train/loss"] == cli.trainer.callback_metrics["train/labels"]


def test_the_pretrained_encoder_is_what_the_student_starts_from(
    pipeline: Path, options: Options, tmp_path: Path
) -> None:
    pretrained = pipeline / "mae/checkpoints/best.ckpt"
    cli = build(options("student", tmp_path, "--model.init_args.init_encoder", str(pretrained)))
    cli.model.setup("fit")
    own = cli.model.encoder.state_dict()
    expected = {k.removeprefix("network.encoder."): v for k, v in weights(pretrained).items() if "encoder." in k}
    assert own.keys() <= expected.keys()
    for key, value in own.items():
        torch.testing.assert_close(value, expected[key])


class Crash(Callback):
    """Stops a fit as a power cut would, at the start of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("power cut")


@pytest.mark.parametrize(
    ("stage", "every", "workers"),
    [(stage, every, "0") for stage in ("mae", "teacher", "student") for every in ("1", "2")] + [("teacher", "1", "1")],
)
def test_a_resumed_run_ends_as_an_uninterrupted(
    stage: str, every: str, workers: str, pipeline: Path, options: Options, tmp_path: Path
) -> None:
    further = (f"--profile.{stage}_validate_every", every, "--profile.workers", workers)
    if stage == "student":
        further += ("--model.init_args.teacher", str(pipeline / "teacher/checkpoints/best.ckpt"))
    whole = build(options(stage, tmp_path / "whole", *further))
    whole.trainer.fit(whole.model, whole.datamodule)
    killed = build(options(stage, tmp_path / "resumed", *further))
    killed.trainer.callbacks.append(Crash(epoch=3))
    with pytest.raises(RuntimeError, match="power cut"):
        killed.trainer.fit(killed.model, killed.datamodule)
    checkpoints = tmp_path / "resumed/checkpoints"
    assert not (checkpoints / "best.ckpt").exists(), "only a finished stage may publish its checkpoint"
    resumed = build(options(stage, tmp_path / "resumed", *further))
    resumed.trainer.fit(resumed.model, resumed.datamodule, ckpt_path=str(checkpoints / "last.ckpt"))
    for name in ("last.ckpt", "best.ckpt"):
        one, other = weights(tmp_path / "whole/checkpoints" / name), weights(checkpoints / name)
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(value, other[key]), f"{name}: {key} differs"
    metrics = [pd.read_csv(tmp_path / name / "metrics.csv") for name in ("whole", "resumed")]
    pd.testing.assert_frame_equal(*metrics, rtol=1e-6)  # a sum's last bit depends on where weights lie in memory


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_an_interrupted_stage_is_told_and_is_no_success(
    sent: signal.Signals,
    status: int,
    options: Options,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(MAEPretrain, "on_train_epoch_end", lambda self: signal.raise_signal(sent))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    assert main(["fit", *options("mae", tmp_path)]) == status
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("interrupted; make resumes from the last validation, as --ckpt_path RUN/checkpoints/last.ck")
    assert not (tmp_path / "checkpoints/best.ckpt").exists()


@pytest.mark.parametrize("every", ["1", "2"])
def test_the_last_state_is_kept_after_a_validation_that_is_no_better(
    every: str, options: Options, tmp_path: Path
) -> None:
    """The tiny cohort's teacher scores 1.0 at once, and never better."""
    run(["fit", *options("teacher", tmp_path, "--profile.teacher_validate_every", every)])
    state = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 24  # 8 epochs of 3 steps
    best = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    assert best["global_step"] < 24


def test_a_stage_that_stopped_early_trains_on_only_with_more_patience(options: Options, tmp_path: Path) -> None:
    last = tmp_path / "checkpoints/last.ckpt"

    def steps(patience: str, *resume: str) -> int:
        further = ("--profile.teacher_validate_every", "1", "--profile.teacher_patience", patience, *resume)
        run(["fit", *options("teacher", tmp_path, *further)])
        return torch.load(last, weights_only=True)["global_step"]

    assert steps("1") == 6  # the second epoch's score is no better
    metrics, published = ((tmp_path / name).read_bytes() for name in ("metrics.csv", "checkpoints/best.ckpt"))
    for _ in range(2):
        (tmp_path / "checkpoints/best.ckpt").unlink()  # as make does where the test is interrupted
        assert steps("1", "--ckpt_path", str(last)) == 6
        assert (tmp_path / "checkpoints/best.ckpt").read_bytes() == published
        assert (tmp_path / "metrics.csv").read_bytes() == metrics
    assert steps("3", "--ckpt_path", str(last)) == 12


def test_options_win_over_the_checkpoint_that_is_resumed(options: Options, pipeline: Path, tmp_path: Path) -> None:
    last = str(pipeline / "mae/checkpoints/last.ckpt")
    arguments = options("mae", tmp_path, "--profile.mae_lr", "0.5", "--profile.mae_epochs", "5")
    run(["fit", *arguments, "--ckpt_path", last])
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["model"]["init_args"]["optimisation"]["init_args"]["lr"] == 0.5
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert json.loads(json.dumps(checkpoint["hyper_parameters"]["optimisation"]))["init_args"]["lr"] == 0.5


def test_slurms_script_requeues_and_not_lightning_with_a_checkpoint_of_its_own(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NTASKS": "1", "JOB_NAME": "mae", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    cli = build(options("mae", tmp_path))
    handlers: list[object] = []

    class Handlers(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            handlers.append(signal.getsignal(signal.SIGUSR1))

    cli.trainer.callbacks.append(Handlers())
    cli.trainer.fit(cli.model, cli.datamodule)
    assert handlers == [signal.SIG_DFL]
