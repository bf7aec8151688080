"""What the teacher says of the clips: computed once, kept, and of training clips alone."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from data_modules import files
from data_modules.unpaired import UnpairedDataModule
from poddistill.lightning_cli import build, run
from poddistill.pod.teacher_tvus import TeacherTVUS

Options = Callable[..., list[str]]


def test_the_teachers_outputs_are_computed_once_and_right(pipeline: Path, options: Options, tmp_path: Path) -> None:
    (kept,) = (pipeline / "teacher/outputs").glob("*.pt")
    outputs = torch.load(kept, weights_only=True)
    checkpoint = pipeline / "teacher/checkpoints/best.ckpt"
    teacher = TeacherTVUS.load_from_checkpoint(checkpoint).eval()
    data = build(options("student", tmp_path)).datamodule
    assert isinstance(data, UnpairedDataModule)
    with torch.no_grad():
        logits = torch.cat([teacher(batch["image"]) for batch in data.clips()])
    torch.testing.assert_close(outputs["logits"], logits)
    written = kept.stat().st_mtime_ns
    arguments = options("student", tmp_path / "second", "--model.init_args.teacher", str(checkpoint))
    run(["fit", *arguments, "--profile.student_epochs", "2"])
    assert [file.stat().st_mtime_ns for file in kept.parent.iterdir()] == [written], "a second student must reuse them"


def test_outputs_that_cannot_be_kept_or_read_are_computed_all_the_same(
    pipeline: Path,
    options: Options,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (right,) = (pipeline / "teacher/outputs").glob("*.pt")
    teachers = {name: tmp_path / name / "outputs" for name in ("shared", "full", "damaged")}
    for outputs in teachers.values():
        shutil.copytree(pipeline / "teacher", outputs.parent, ignore=shutil.ignore_patterns("outputs"))
    teachers["shared"].write_text("no folder, as in one that is shared for reading\n")
    teachers["full"].mkdir()
    full, beside = teachers["full"] / "first-written-here", files.name_beside
    full.symlink_to("/dev/full")
    monkeypatch.setattr(files, "name_beside", lambda file: full if file.parent == full.parent else beside(file))
    teachers["damaged"].mkdir()
    (teachers["damaged"] / right.name).write_bytes(right.read_bytes()[: right.stat().st_size // 2])
    losses = []
    for teacher in (pipeline / "teacher", *(outputs.parent for outputs in teachers.values())):
        upstream = ("--model.init_args.teacher", str(teacher / "checkpoints/best.ckpt"))
        folder = tmp_path / "students" / str(len(losses))
        run(["fit", *options("student", folder, *upstream), "--profile.student_epochs", "2"])
        losses.append(pd.read_csv(folder / "metrics.csv")["train/loss"].dropna().tolist())
    told = capsys.readouterr().out
    for outputs, reason in ((teachers["shared"], "File exists"), (teachers["full"], "No space left on device")):
        assert f"{outputs}: the teacher's outputs are not kept for other students: {reason}\n" in told
    assert f"{teachers['damaged'] / right.name}: cannot be read, so the teacher's outputs are computed again: " in told
    assert losses[0] == losses[1] == losses[2] == losses[3] != []
    assert not list(teachers["full"].iterdir())
    assert torch.load(*teachers["damaged"].iterdir(), weights_only=True).keys() == torch.load(right).keys()


def test_outputs_on_augmented_copies_are_kept_apart(pipeline: Path, options: Options, tmp_path: Path) -> None:
    shutil.copytree(pipeline / "teacher", tmp_path / "teacher")
    (plain,) = (tmp_path / "teacher/outputs").glob("*.pt")
    upstream = ("--model.init_args.teacher", str(tmp_path / "teacher/checkpoints/best.ckpt"))
    copies = ("--data.init_args.clip_copies", "3")
    clips = ("--data.init_args.tvus.init_args.augmentation", "data_modules.augmentation.ClipAugmentation")
    run(["fit", *options("student", tmp_path / "student", *upstream, *clips, *copies), "--profile.student_epochs", "2"])
    (kept,) = set((tmp_path / "teacher/outputs").glob("*.pt")) - {plain}
    outputs, before = (torch.load(file, weights_only=True) for file in (kept, plain))
    assert outputs["case_ids"] == 3 * before["case_ids"]
    assert torch.equal(outputs["labels"], before["labels"].repeat(3))
    assert len(outputs["logits"].unique()) == len(outputs["logits"])


def test_no_clip_of_a_held_out_patient_teaches(pipeline: Path, tiny_cohort: Path) -> None:
    (kept,) = (pipeline / "teacher/outputs").glob("*.pt")
    folds = pd.read_csv(tiny_cohort / "tvus.csv").set_index("case_id")["fold"]
    taught = folds[torch.load(kept, weights_only=True)["case_ids"]]
    assert len(taught) == 24
    assert set(taught) == {2, 3}
