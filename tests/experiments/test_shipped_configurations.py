"""Every shipped YAML against the real code."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from poddistill.lightning_cli import build
from poddistill.nets.vision_transformer import VisionTransformer3D
from poddistill.training.compilation import Compilation
from poddistill.training.utilisation import Utilisation

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
POD = EXPERIMENTS / "pod"
STAGES = ("mae", "teacher", "student", "joint-mae", "joint-student")
BUDGETS = {stage: stage.removeprefix("joint-") for stage in STAGES}
PROFILES = sorted(file.stem for file in POD.glob("*.yaml") if file.stem not in STAGES)
SHIPPED = sorted(file for file in EXPERIMENTS.rglob("*.yaml") if "results" not in file.parts)  # those are records
PRESETS = sorted((EXPERIMENTS / "debug").glob("*.yaml"))


def stage_options(profile: str, stage: str, run: Path, cohort: Path) -> list[str]:
    files = ("--config", str(POD / f"{profile}.yaml"), "--config", str(POD / f"{stage}.yaml"))
    return [*files, "--run", str(run), "--cohort", str(cohort), "--trainer.accelerator", "cpu"]


def test_no_configuration_is_overlooked() -> None:
    assert PROFILES == ["demo", "paper", "study"]
    assert {file.parent.name for file in SHIPPED} == {"pod", "arms", "controls", "search", "debug"}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_stage_of_a_profile_is_built(profile: str, stage: str, tiny_cohort: Path, tmp_path: Path) -> None:
    further = ["--trainer.precision", "32-true"]  # a CPU need not have bf16
    cli = build([*stage_options(profile, stage, tmp_path, tiny_cohort), *further])
    values = yaml.safe_load((POD / f"{profile}.yaml").read_text())["profile"]
    assert cli.trainer.max_epochs == values[f"{BUDGETS[stage]}_epochs"]
    network = {"mae": lambda m: m.network.encoder, "teacher": lambda m: m.network, "student": lambda m: m.encoder}
    built = network[BUDGETS[stage]](cli.model)
    if stage == "teacher":
        assert built.n_features == 8 * values["teacher_width"]
    else:
        assert list(built.image_size) == values["volume_size"]
        assert built.width == values["encoder_width"]
    if stage.startswith("joint-"):
        of_clips = cli.model.clip_network.encoder if stage == "joint-mae" else cli.model.clip_encoder
        assert list(of_clips.image_size) == values["clip_size"]
        assert of_clips.blocks[-1].attention is built.blocks[-1].attention


@pytest.mark.parametrize("stage", STAGES)
def test_how_a_stage_is_computed_is_a_value_of_the_profile(
    stage: str, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)  # also what it is set back to
    chosen = {"compile": "reduce-overhead", "checkpointing": "true", f"{BUDGETS[stage]}_accumulate": "3"}
    chosen |= {"teacher_benchmark": "true", "mae_prediction_ratio": "0.25"}
    options = [part for key, value in chosen.items() for part in (f"--profile.{key}", value)]
    cli = build([*stage_options("demo", stage, tmp_path, tiny_cohort), *options])
    (compilation,) = (callback for callback in cli.trainer.callbacks if isinstance(callback, Compilation))
    assert compilation.mode == "reduce-overhead"
    assert any(isinstance(callback, Utilisation) for callback in cli.trainer.callbacks)
    assert cli.trainer.accumulate_grad_batches == 3
    if BUDGETS[stage] == "mae":
        assert cli.model.network.n_predicted == round(0.25 * (72 - cli.model.network.n_visible))
    if stage != "teacher":
        assert all(part.checkpointing for part in cli.model.modules() if isinstance(part, VisionTransformer3D))
    assert torch.backends.cudnn.benchmark is (stage == "teacher")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_value_of_a_profile_is_used(profile: str) -> None:
    users = [*(POD / f"{stage}.yaml" for stage in STAGES), *(POD / "arms").glob("*.yaml")]
    text = "".join(file.read_text() for file in users)
    for key in yaml.safe_load((POD / f"{profile}.yaml").read_text())["profile"]:
        assert f"${{profile.{key}}}" in text, f"{key} of {profile}.yaml is referred to by no stage or arm"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_value_has_its_comment(file: Path) -> None:
    for number, line in enumerate(file.read_text().splitlines(), 1):
        key, _, value = line.strip().partition(":")
        plain = value.strip() and not value.strip().startswith(("$", "#")) and key.strip("- ") != "class_path"
        if plain and not line.lstrip().startswith("#"):
            described = "#" in value or key.strip("- ") in ("method", "dirpath", "monitor", "name", "mode")
            assert described or file.stem in PROFILES, f"{file.name}, line {number}: {line.strip()} has no comment"


@pytest.mark.parametrize("file", sorted((POD / "search").glob("*.yaml")), ids=lambda file: file.stem)
def test_what_is_searched_are_options_of_the_arm(file: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    words = [*stage_options("study", "student", tmp_path, tiny_cohort), "--config", str(POD / "arms" / file.name)]
    plain = str(build(words).config)
    for option, limits in yaml.safe_load(file.read_text()).items():
        assert limits["low"] < limits["high"]
        assert str(build([*words, option, str(limits["low"])]).config) != plain, f"{option} changes nothing"


@pytest.mark.parametrize(
    ("pretraining", "network", "student", "encoder"),
    [
        ("mae", "network", "student", "encoder"),
        ("joint-mae", "mri", "student", "encoder"),
        ("joint-mae", "mri", "joint-student", "encoder"),
        ("joint-mae", "tvus", "joint-student", "clip_encoder"),
    ],
)
def test_a_student_and_its_pretraining_have_the_same_encoder(
    pretraining: str, network: str, student: str, encoder: str
) -> None:
    models = {stage: yaml.safe_load((POD / f"{stage}.yaml").read_text())["model"] for stage in STAGES}
    pretrained = models[pretraining]["init_args"][network]["init_args"]["encoder"]["init_args"]
    finetuned = models[student]["init_args"][encoder]["init_args"]
    assert {key: finetuned[key] for key in pretrained} == pretrained


@pytest.mark.parametrize("stage", STAGES)
def test_fast_dev_run_runs_and_writes_nothing(stage: str, tiny_cohort: Path, tmp_path: Path) -> None:
    arguments = stage_options("demo", stage, tmp_path / "run", tiny_cohort)
    small = ["--profile.volume_size", "[8,16,16]", "--profile.patch_size", "[4,4,4]", "--profile.n_labelled", "null"]
    small += ["--profile.clip_size", "[8,16,16]", "--profile.clip_patch_size", "[4,4,4]"]
    cli = build([*arguments, *small, "--config", str(EXPERIMENTS / "debug/fast_dev_run.yaml")])
    cli.trainer.fit(cli.model, cli.datamodule)
    assert cli.trainer.global_step == 1
    assert not list(tmp_path.rglob("*"))


def test_one_batch_is_learned_by_heart(tiny_cohort: Path, tmp_path: Path) -> None:
    arguments = stage_options("demo", "student", tmp_path, tiny_cohort)
    small = [
        "--profile.volume_size",
        "[8,16,16]",
        "--profile.patch_size",
        "[4,4,4]",
        "--profile.student_batch_size",
        "8",
        "--profile.n_labelled",
        "null",
    ]
    plain = tmp_path / "plain.yaml"
    plain.write_text("data: {init_args: {mri: {init_args: {augmentation: null}}}}")
    still = ["--config", str(plain), "--profile.student_ema", "0.5"]
    cli = build([*arguments, *small, *still, "--config", str(EXPERIMENTS / "debug/overfit_batch.yaml")])
    cli.trainer.loggers = cli.trainer.loggers[:1]
    cli.trainer.fit(cli.model, cli.datamodule)
    assert cli.trainer.callback_metrics["train/loss"] < 0.05
    assert pd.read_csv(tmp_path / "metrics.csv")["train/loss"].dropna().iloc[0] > 0.5
