"""One representation of volumes and clips, through the configurations that are shipped."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data_modules.errors import InputError
from poddistill.lightning_cli import StageCLI, build, run
from poddistill.pod.shared_mae import SharedMAEPretrain
from poddistill.training.checkpoints import hashed

POD = Path(__file__).parents[2] / "experiments" / "pod"
ARMS = sorted(file.stem for file in (POD / "arms").glob("joint-student*.yaml"))
Options = Callable[..., list[str]]


@pytest.fixture(scope="module")
def shared(options: Options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run joint-mae."""
    folder = tmp_path_factory.mktemp("shared")
    run(["fit", *options("joint-mae", folder / "joint-mae")])
    return folder


def fit(shared: Path, options: Options, arm: str) -> Path:
    config = ("--config", str(POD / "arms" / f"{arm}.yaml"))
    if not (shared / arm / "checkpoints/best.ckpt").exists():
        run(["fit", *options("joint-student", shared / arm, *config, "--profile.student_epochs", "4")])
    return shared / arm


def without_wandb(arguments: list[str]) -> StageCLI:
    cli = build(arguments)
    cli.trainer.loggers = cli.trainer.loggers[:1]
    return cli


def test_the_auto_encoders_of_both_modalities_learn(shared: Path) -> None:
    metrics = pd.read_csv(shared / "joint-mae/metrics.csv")
    for name in ("train/loss_mri", "train/loss_tvus", "val/loss"):
        losses = metrics[name].dropna()
        assert losses.iloc[-1] < losses.iloc[0], name
    parts = metrics["train/loss_mri"] + metrics["train/loss_tvus"]
    pd.testing.assert_series_equal(metrics["train/loss"], parts, check_names=False, rtol=1e-4)
    assert (shared / "joint-mae/figures/mae-reconstructions.png").is_file()


def test_a_weight_of_the_clips_is_in_the_loss_and_in_the_gradient_of_the_blocks(
    options: Options, tmp_path: Path
) -> None:
    gradients, steps = [], []
    for weight in ("0", "1", "3"):
        cli = without_wandb(options("joint-mae", tmp_path, "--model.init_args.clip_weight", weight))
        model = cli.model
        assert isinstance(model, SharedMAEPretrain)
        volumes, clips = torch.zeros(2, 1, 8, 16, 16), torch.ones(2, 1, 8, 16, 16)
        model.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
        torch.manual_seed(0)
        loss = model.training_step({"mri": {"image": volumes}, "tvus": {"image": clips}}, 0)
        loss.backward()
        steps.append(loss.item())
        gradients.append(model.clip_network.encoder.blocks[0].mlp[0].weight.grad)
    assert steps[2] - steps[0] == pytest.approx(3 * (steps[1] - steps[0]), rel=1e-4)
    torch.testing.assert_close(gradients[2] - gradients[0], 3 * (gradients[1] - gradients[0]), rtol=1e-3, atol=1e-6)
    assert (gradients[1] - gradients[0]).abs().max() > 0


def test_the_checkpoint_starts_either_student(shared: Path, options: Options, tmp_path: Path) -> None:
    checkpoint = shared / "joint-mae/checkpoints/best.ckpt"
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    start = ("--model.init_args.init_encoder", str(checkpoint))
    for stage, parts in (
        ("student", {"encoder": "network"}),
        ("joint-student", {"encoder": "network", "clip_encoder": "clip_network"}),
    ):
        model = without_wandb(options(stage, tmp_path, *start)).model
        model.setup("fit")
        for part, network in parts.items():
            for name, value in getattr(model, part).state_dict().items():
                assert torch.equal(value, weights[f"{network}.encoder.{name}"]), f"{stage}: {part}.{name}"


def test_a_checkpoint_of_mri_alone_is_told(pipeline: Path, options: Options, tmp_path: Path) -> None:
    start = ("--model.init_args.init_encoder", str(pipeline / "mae/checkpoints/best.ckpt"))
    model = without_wandb(options("joint-student", tmp_path, *start)).model
    with pytest.raises(InputError, match=r"holds no MAE encoder of clips.*joint-mae stage as model\.init_encoder"):
        model.setup("fit")


@pytest.mark.parametrize("stage", ["joint-mae", "joint-student"])
def test_batches_without_clips_are_told(stage: str, options: Options, tmp_path: Path) -> None:
    cli = without_wandb(options(stage, tmp_path, "--data.init_args.clips_in_batches", "0"))
    with pytest.raises(InputError, match=r"data\.clips_in_batches is 0, but this stage learns from clips"):
        cli.trainer.fit(cli.model, cli.datamodule)


@pytest.mark.parametrize("stage", ["mae", "student"])
def test_batches_with_clips_are_told_where_nothing_learns_from_them(
    stage: str, options: Options, tmp_path: Path
) -> None:
    cli = without_wandb(options(stage, tmp_path))
    both = without_wandb(options(f"joint-{stage}", tmp_path)).datamodule
    with pytest.raises(InputError, match=r"data\.clips_in_batches is \d+, but this stage learns from volumes alone"):
        cli.trainer.fit(cli.model, both)


def test_encoders_that_cannot_share_are_told(options: Options, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"depth is 2 in one encoder and 3 in the other"):
        build(options("joint-student", tmp_path, "--model.init_args.clip_encoder.init_args.depth", "3"))


@pytest.mark.parametrize(
    ("stage", "start"),
    [
        ("student", {"teacher": "teacher"}),
        ("student", {"teacher": "nowhere", "control_teacher": "teacher"}),  # which takes the place of the first
        ("joint-student", {"init_encoder": "joint-mae"}),
    ],
)
def test_an_earlier_stage_of_another_fold_is_refused(
    stage: str, start: dict[str, str], pipeline: Path, shared: Path, options: Options, tmp_path: Path
) -> None:
    files = {
        name: {"joint-mae": shared}.get(run, pipeline) / run / "checkpoints/best.ckpt" for name, run in start.items()
    }
    upstream = [part for name, file in files.items() for part in (f"--model.init_args.{name}", str(file))]
    *_, last = files.values()
    with pytest.raises(InputError, match=rf"^{last}: was trained on \d+ of the \d+ patients whom"):
        run(["fit", *options(stage, tmp_path, *upstream, "--fold", "2")])


@pytest.mark.parametrize(
    ("stage", "start"),
    [
        ("student", {"init_encoder": "mae", "teacher": "teacher"}),
        ("student", {"init_encoder": "mae", "teacher": "teacher", "control_teacher": "teacher"}),
        ("joint-student", {"init_encoder": "joint-mae"}),
    ],
)
def test_a_checkpoint_knows_whom_earlier_stages_were_trained_on(
    stage: str, start: dict[str, str], pipeline: Path, shared: Path, options: Options, tmp_path: Path
) -> None:
    upstream, expected = [], set()
    for name, run_name in start.items():
        file = tmp_path / name / "checkpoints/best.ckpt"
        file.parent.mkdir(parents=True)
        source = (shared if run_name == "joint-mae" else pipeline) / run_name / "checkpoints/best.ckpt"
        torch.save(torch.load(source, weights_only=True) | {"trained_patients": [f"of {name}"]}, file)
        upstream += [f"--model.init_args.{name}", str(file)]
        if name != "teacher" or "control_teacher" not in start:  # a teacher whose place is taken teaches nothing
            expected.add(f"of {name}")
    cli = without_wandb(options(stage, tmp_path / "run", *upstream, "--trainer.max_epochs", "2"))
    cli.trainer.fit(cli.model, cli.datamodule)
    for name in ("best", "last"):
        saved = torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True)["trained_patients"]
        assert saved == sorted(expected.union(hashed(cli.datamodule.trained_patients)))


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_trains_and_predicts(arm: str, shared: Path, options: Options) -> None:
    folder = fit(shared, options, arm)
    metrics = pd.read_csv(folder / "metrics.csv").dropna(subset="train/loss")
    assert np.isfinite(metrics["train/clips"]).all()
    weight = metrics["train/clips_weight"]
    mixed = weight * metrics["train/clips"] + (1 - weight) * metrics["train/labels"]
    pd.testing.assert_series_equal(metrics["train/loss"], mixed, check_names=False, rtol=1e-4)
    assert pd.read_csv(folder / "predictions.csv")["probability"].between(0, 1).all()


def test_at_test_time_there_is_only_mri(shared: Path, options: Options, tmp_path: Path) -> None:
    folder = fit(shared, options, "joint-student")
    before = pd.read_csv(folder / "predictions.csv")
    checkpoint = ("--ckpt_path", str(folder / "checkpoints/best.ckpt"))
    no_clips = ("--data.init_args.clips_in_batches", "0", "--data.init_args.tvus", "null")
    run(["test", "--config", str(folder / "config.yaml"), *checkpoint, *no_clips])
    after = pd.read_csv(folder / "predictions.csv")
    pd.testing.assert_frame_equal(before, after)
    model = without_wandb(options("joint-student", tmp_path)).model.eval()
    volume = torch.rand(2, 1, 8, 16, 16)
    first = model(volume)
    with torch.no_grad():
        for parameter in model.clip_encoder.patch_embedding.parameters():
            parameter.fill_(torch.nan)
    assert torch.equal(model(volume), first)
