import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from data_modules.cohort import read_manifest
from data_modules.errors import InputError
from data_modules.ingest import ingest_mri, ingest_tvus

SECRETS = ("HOSP", "Roe", "Jane", "19801231", "20210704", "1.2.826")
SHAPE, SPACING = (8, 16, 16), (4.0, 2.0, 2.0)
GRID = np.diag([4.0, 2.0, 2.0, 1.0])


@pytest.fixture
def hospital(
    tmp_path: Path,
    write_series: Callable[..., list[Path]],
    write_cine: Callable[..., Path],
    write_avi: Callable[..., Path],
    noise_volume: np.ndarray,
    moving_frames: np.ndarray,
) -> Path:
    """Twelve patients with MRI (six labelled, two of them with a second series) and nine with ultrasound."""
    source = tmp_path / "hospital"
    rng = np.random.default_rng(0)
    rows = ["patient_id,label,path,age,mrn"]
    for number in range(6):
        patient = f"HOSP{number:04d}"
        folder, study = source / "mri" / f"{patient}_Roe" / "20210704", {"StudyInstanceUID": f"1.2.826.0.1.{number}"}
        volume = noise_volume + rng.integers(0, 2000, noise_volume.shape).astype(np.uint16)  # no two are alike
        write_series(folder / "t2", volume, patient=patient, SeriesDescription="T2 sag", **study)
        rows.append(f"{patient},{number % 2},{folder.relative_to(source / 'mri')},{30 + number},{4711000 + number}")
    second = {"SeriesDescription": "T1 sag", "EchoTime": 9.0, **study}
    write_series(folder / "t1", noise_volume[:, ::-1].copy(), patient=patient, **second)
    for number in range(6, 12):
        volume = rng.integers(0, 999, (8, 16, 16)).astype(np.int16)
        nib.save(nib.Nifti1Image(volume, GRID), source / "mri" / f"HOSP{number:04d}_t2.nii.gz")
    (source / "mri" / "labels.csv").write_text("\n".join(rows))
    rows = ["patient_id,label"]
    for number in range(4, 13):
        patient = f"HOSP{number:04d}"
        texture = cv2.GaussianBlur(rng.integers(0, 255, (60, 80)).astype(np.uint8), (0, 0), 3)
        frames = moving_frames // 2 + texture // 2
        if number % 2:
            write_avi(source / "tvus" / f"{patient}_a.avi", frames)
        else:
            write_cine(source / "tvus" / f"{patient}.dcm", frames, patient=patient)
        rows.append(f"{patient},{number // 2 % 2}")
    (source / "tvus" / "labels.csv").write_text("\n".join(rows))
    return source


def ingest_both(source: Path, out: Path, workers: int = 1) -> None:
    ingest_mri(source / "mri", out, shape=SHAPE, spacing=SPACING, folds=3, workers=workers)
    ingest_tvus(source / "tvus", out, shape=(6, 16, 16), folds=3, workers=workers)


def content(cohort: Path) -> dict[str, bytes]:
    return {path.relative_to(cohort).as_posix(): path.read_bytes() for path in cohort.rglob("*") if path.is_file()}


def key_for(out: Path) -> None:
    out.with_name(f"{out.name}.key").write_text("a key for tests, long enough\n")


def test_cases_labels_and_covariates_reach_the_manifests(hospital: Path, tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    summary = ingest_mri(hospital / "mri", out, shape=SHAPE, spacing=SPACING, folds=3, workers=1)
    assert (summary.cases, summary.patients, summary.labelled, summary.obliterated) == (12, 12, 6, 3)
    assert (summary.kept, summary.rejected, summary.ignored_columns) == (0, 1, ("mrn",))
    assert str(summary).startswith("12 cases of 12 patients, 6 labelled, 3 obliterated; 1 left out, see ")
    assert summary.account == {"used as T2 sagittal": 12, "left out: another series is used": 1}
    summary = ingest_tvus(hospital, out, shape=(6, 16, 16), folds=3, workers=1)  # the folder above tvus will do
    assert (summary.cases, summary.labelled, summary.rejected) == (9, 9, 0)
    mri, tvus = read_manifest(out, "mri"), read_manifest(out, "tvus")
    assert sorted(mri["age"].dropna()) == [30, 31, 32, 33, 34, 35]
    assert len(set(mri["patient_id"]) & set(tvus["patient_id"])) == 8  # the same pseudonyms in both
    assert mri["fold"].notna().all()  # all of them are labelled in one modality or the other
    array = np.load(out / mri["path"][0])
    assert array.dtype == np.float16
    assert array.shape == SHAPE
    assert np.load(out / tvus["path"][0]).dtype == np.uint8
    assert (out / "report.html").is_file()


def test_nothing_that_is_written_holds_an_identifier(hospital: Path, tmp_path: Path) -> None:
    (hospital / "mri" / "HOSP0006_Jane.nii.gz").write_bytes(b"damaged")
    out = tmp_path / "cohort"
    ingest_both(hospital, out)
    for name, data in content(out).items():
        data = re.sub(rb"data:image/png;base64,[^\"]*", b"", data)  # letters by chance
        for secret in SECRETS:
            assert secret not in name
            assert secret.encode() not in data, (name, secret)
    rejected = pd.read_csv(out / "rejected.csv")
    assert len(rejected) == 2
    key = tmp_path / "cohort.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not any(key.read_bytes().strip() in data for data in content(out).values())


def test_no_warning_quotes_a_header(hospital: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for file in (hospital / "mri" / "HOSP0000_Roe").rglob("IM*"):
        file.write_bytes(file.read_bytes().replace(b"1.2.826.", b"1.2.HOSP"))  # no valid UID
    ingest_mri(hospital / "mri", tmp_path / "cohort", shape=SHAPE, spacing=SPACING, folds=3, workers=1)
    assert not [str(warning.message) for warning in recwarn if "HOSP" in str(warning.message)]


def test_a_killed_ingest_goes_on_and_ends_with_the_same_bytes(hospital: Path, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "a" / "cohort", tmp_path / "b" / "cohort"
    for out in (whole, resumed):
        out.parent.mkdir()
        key_for(out)
    ingest_both(hospital, whole)
    script = (
        "import os, signal, sys\n"
        "from data_modules.ingest import ingest_mri\n"
        "def kill(done, total):\n"
        "    if done == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"ingest_mri(sys.argv[1], sys.argv[2], shape={SHAPE}, spacing={SPACING}, folds=3, workers=1, progress=kill)\n"
    )
    command = [sys.executable, "-c", script, str(hospital / "mri"), str(resumed)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    assert not (resumed / "mri.csv").exists()
    (resumed / "mri" / ".mri-unfinished.npy.123").write_bytes(b"half")
    summary = ingest_mri(hospital / "mri", resumed, shape=SHAPE, spacing=SPACING, folds=3, workers=1)
    assert summary.kept >= 5  # a worker outlives its parent for a while and may have finished more
    ingest_tvus(hospital / "tvus", resumed, shape=(6, 16, 16), folds=3, workers=1)
    assert content(resumed) == content(whole)


def test_the_number_of_processes_changes_nothing(hospital: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "cohort", tmp_path / "b" / "cohort"
    for out in (one, two):
        out.parent.mkdir()
        key_for(out)
    ingest_mri(hospital / "mri", one, shape=SHAPE, spacing=SPACING, folds=3, workers=1)
    ingest_mri(hospital / "mri", two, shape=SHAPE, spacing=SPACING, folds=3, workers=2)
    assert content(one) == content(two)


def test_other_parameters_and_changed_files_are_made_anew(hospital: Path, tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    run = lambda shape=SHAPE: ingest_mri(hospital / "mri", out, shape=shape, spacing=SPACING, folds=3, workers=1)  # noqa: E731
    assert run().kept == 0
    assert run().kept == 12
    file = hospital / "mri" / "HOSP0007_t2.nii.gz"
    os.utime(file, ns=(0, 0))
    assert run().kept == 11
    assert run((8, 12, 12)).kept == 0
    assert np.load(out / read_manifest(out, "mri")["path"][0]).shape == (8, 12, 12)
    file.unlink()
    summary = ingest_mri(
        hospital / "mri", out, shape=(8, 12, 12), spacing=SPACING, folds=3, workers=1, remove_missing=True
    )
    assert (summary.cases, summary.kept) == (11, 11)
    assert len(list((out / "mri").glob("*.npy"))) == 11  # the case that is gone is gone from the store as well


def test_bad_files_are_listed_with_reasons_and_the_rest_goes_on(hospital: Path, tmp_path: Path) -> None:
    mri = hospital / "mri"
    (mri / "bad.nii.gz").write_bytes(b"\x1f\x8b not gzip")
    (mri / "notes.txt").write_text("hello")
    next((mri / "HOSP0000_Roe").rglob("IM*")).unlink()
    with (mri / "labels.csv").open("a") as labels:
        labels.write("\nHOSP0099,1,nowhere,40,4711099")
    out = tmp_path / "cohort"
    summary = ingest_mri(mri, out, shape=SHAPE, spacing=SPACING, folds=3, workers=1)
    assert summary.cases == 11
    rejected = pd.read_csv(out / "rejected.csv")
    assert list(rejected.columns) == ["modality", "set", "source", "reason"]
    reasons = " | ".join(rejected["reason"])
    for expected in ("cannot be read (", "neither DICOM nor NIfTI", "slices are missing", "path that is not there"):
        assert expected in reasons
    with pytest.raises(InputError, match="leave out --strict") as caught:
        ingest_mri(mri, out, shape=SHAPE, spacing=SPACING, folds=3, workers=1, strict=True)
    assert "\n" not in str(caught.value)


def test_a_private_list_names_the_files_of_cases_and_of_what_was_left_out(hospital: Path, tmp_path: Path) -> None:
    mri = hospital / "mri"
    (mri / "HOSP0011_Roe.nii.gz").write_bytes(b"damaged")
    out, private = tmp_path / "cohort", tmp_path / "private.csv"
    ingest_mri(mri, out, shape=SHAPE, spacing=SPACING, folds=3, sources=private)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    table = pd.read_csv(private, keep_default_na=False)
    named = dict(zip(table["source"], table["case_id"], strict=True))
    assert set(named.values()) - {""} == set(read_manifest(out, "mri")["case_id"])
    assert named["HOSP0007_t2.nii.gz"].startswith("mri-p")
    assert table.set_index("source").loc["HOSP0011_Roe.nii.gz", "reason"] == "not a NIfTI file"
    assert "Roe" not in (out / "rejected.csv").read_text()


def test_a_public_set_joins_the_hospitals_cohort(hospital: Path, tmp_path: Path) -> None:
    out, public = tmp_path / "cohort", tmp_path / "public"
    rng = np.random.default_rng(5)
    for number in range(3):
        folder = public / f"s{number:04d}"
        folder.mkdir(parents=True)
        nib.save(nib.Nifti1Image(rng.integers(0, 999, (8, 16, 16)).astype(np.int16), GRID), folder / "mri.nii.gz")
    (public / "s0001" / "mri.nii.gz").write_bytes(b"damaged")
    ingest_mri(hospital / "mri", out, shape=SHAPE, spacing=SPACING, folds=3)
    own = read_manifest(out, "mri")
    for _ in range(2):
        summary = ingest_mri(public, out, shape=SHAPE, spacing=SPACING, folds=3, layout="totalsegmentator-mri")
        assert (summary.cases, summary.labelled, summary.rejected) == (2, 0, 1)
        both = read_manifest(out, "mri")
        assert both["case_id"].str.startswith("mri-totalsegmentator-mri-p").sum() == 2
        pd.testing.assert_frame_equal(both[both["case_id"].isin(own["case_id"])].reset_index(drop=True), own)
        assert ingest_mri(hospital / "mri", out, shape=SHAPE, spacing=SPACING, folds=3).kept == 12
    assert pd.read_csv(out / "rejected.csv", keep_default_na=False)["set"].tolist() == ["", "totalsegmentator-mri"]
    with pytest.raises(InputError, match=r"--shape 8 8 8: .* holds cases of 8 16 16; give the same"):
        ingest_mri(public, out, shape=(8, 8, 8), spacing=SPACING, folds=3, layout="totalsegmentator-mri")


def test_given_folds_are_kept_and_followed_by_the_other_modality(hospital: Path, tmp_path: Path) -> None:
    labels = hospital / "mri" / "labels.csv"
    table = pd.read_csv(labels)
    table["fold"] = [0, 1, 2, 0, 1, 2]
    table.to_csv(labels, index=False)
    out = tmp_path / "cohort"
    ingest_both(hospital, out)
    mri, tvus = read_manifest(out, "mri"), read_manifest(out, "tvus")  # checks that no patient is in two folds
    assert mri.dropna(subset="age").sort_values("age")["fold"].tolist() == [0, 1, 2, 0, 1, 2]
    assert tvus["fold"].notna().all()
    table["fold"] = 0
    table = pd.concat([table, table.iloc[:1].assign(fold=1, path="elsewhere")])
    table.to_csv(labels, index=False)
    with pytest.raises(InputError, match="patient HOSP0000 is in two folds"):
        ingest_mri(hospital / "mri", out, folds=3, workers=1)


def test_a_row_of_a_bad_label_is_rejected_and_its_clip_is_unlabelled(hospital: Path, tmp_path: Path) -> None:
    labels = hospital / "tvus" / "labels.csv"
    labels.write_text(labels.read_text().replace("HOSP0005,0", "HOSP0005,free"))
    summary = ingest_tvus(hospital / "tvus", tmp_path / "cohort", folds=3, workers=1)
    assert (summary.cases, summary.labelled, summary.defects) == (9, 8, 1)
    assert list(summary.reasons) == ["its label is no label: use 1 (obliterated), 0 (free) or leave it empty"]
    with pytest.raises(InputError, match=r"labels\.csv row 3: its label is no label"):
        ingest_tvus(hospital / "tvus", tmp_path / "cohort", folds=3, workers=1, strict=True)


def test_without_labels_all_cases_are_unlabelled(hospital: Path, tmp_path: Path) -> None:
    (hospital / "mri" / "labels.csv").unlink()
    summary = ingest_mri(hospital / "mri", tmp_path / "cohort", shape=SHAPE, spacing=SPACING, workers=1)
    assert summary.labelled == 0
    assert read_manifest(tmp_path / "cohort", "mri")["fold"].isna().all()


def test_labels_are_not_lost_by_forgetting_them(hospital: Path, tmp_path: Path) -> None:
    given = (hospital / "mri" / "labels.csv").rename(hospital / "mri" / "mine.csv")
    options: dict[str, Any] = {"shape": SHAPE, "spacing": SPACING, "workers": 1}
    ingest_mri(hospital / "mri", tmp_path / "cohort", labels=given, **options)
    before = (tmp_path / "cohort" / "mri.csv").read_bytes()
    with pytest.raises(
        InputError, match=r"labels\.csv: gives no labels, and the mri cases of .*cohort would lose theirs"
    ):
        ingest_mri(hospital / "mri", tmp_path / "cohort", **options)
    assert (tmp_path / "cohort" / "mri.csv").read_bytes() == before
    rows = [line.split(",") for line in given.read_text().splitlines()[1:]]
    given.write_text("\n".join(["patient_id,label,path", *(f"{row[0]},,{row[2]}" for row in rows)]))
    assert ingest_mri(hospital / "mri", tmp_path / "cohort", labels=given, **options).labelled == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"src": "nowhere"}, "no such folder"),
        ({"out": "hospital/mri/cohort"}, "lies in the source folder"),
        ({"out": "hospital"}, "lies where the cohort .*hospital keeps its arrays; choose another --out"),
        ({"out": "/"}, "--out /: is no folder for a cohort"),
        ({"labels": "none.csv"}, r"none\.csv: no such label file; correct --labels"),
        ({"shape": (8, 0, 8)}, "--shape 8 0 8: give three numbers above 0"),
        ({"folds": 2}, "need at least 3"),
        ({"src": "empty"}, "no usable mri case among 1 files"),
        ({"layout": "nowhere"}, "umd"),
        ({"series_rules": "none.yaml"}, r"none\.yaml: no such readable file; correct --series_rules"),
        ({"sources": "cohort/sources.csv"}, "keep it outside the cohort"),
        ({"sources": "no/folder.csv"}, "give a file in a folder that exists"),
        ({"time_limit": 0}, "--time_limit 0"),
        ({"memory_limit": 0.1}, "--memory_limit 0.1: give at least 1 GiB"),
    ],
)
def test_wrong_folders_and_options_are_told_in_one_line(
    hospital: Path, tmp_path: Path, options: dict, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    files = {"src", "out", "labels", "series_rules", "sources"}
    paths = {name: tmp_path / value for name, value in options.items() if name in files}
    arguments = {"src": hospital / "mri", "out": tmp_path / "cohort", "workers": 1, **options, **paths}
    with pytest.raises(InputError, match=message) as caught:
        ingest_mri(**arguments)
    assert "\n" not in str(caught.value)


def test_what_a_header_says_of_burnt_in_text_is_a_warning_of_the_case(
    tmp_path: Path, write_series: Callable[..., list[Path]], noise_volume: np.ndarray
) -> None:
    write_series(tmp_path / "source" / "a", noise_volume, patient="a", BurnedInAnnotation="YES")
    write_series(tmp_path / "source" / "b", noise_volume[:, ::-1].copy(), patient="b", BurnedInAnnotation="NO")
    ingest_mri(tmp_path / "source", tmp_path / "cohort", shape=SHAPE, workers=1)
    records = [json.loads(file.read_text()) for file in (tmp_path / "cohort" / "mri").glob("*.json")]
    assert sorted(len(record.get("warnings", [])) for record in records) == [0, 1]
    assert "text is burned into the picture" in (tmp_path / "cohort" / "report.html").read_text()


@pytest.mark.parametrize("given", [".", "..", "inside/.."])
def test_the_key_lies_beside_the_cohort_however_its_folder_is_given(
    tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = tmp_path / "cohorts" / "cohort"
    (cohort / "inside").mkdir(parents=True)
    (tmp_path / "source").mkdir()
    volume = np.random.default_rng(0).integers(0, 999, (8, 16, 16)).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, GRID), tmp_path / "source" / "a.nii")
    monkeypatch.chdir(cohort / "inside" if given == ".." else cohort)
    ingest_mri(tmp_path / "source", given, shape=SHAPE, spacing=SPACING, workers=1)
    assert [file.name for file in tmp_path.rglob("*.key")] == ["cohort.key"]
    assert (cohort.parent / "cohort.key").is_file()
    assert len(read_manifest(cohort, "mri")) == 1


def test_two_ingests_into_one_cohort_do_not_meet(hospital: Path, tmp_path: Path) -> None:
    def again(done: int, total: int) -> None:
        ingest_tvus(hospital / "tvus", tmp_path / "cohort", workers=1)

    with pytest.raises(InputError, match=r"cohort\.key: in use by another ingest"):
        ingest_mri(hospital / "mri", tmp_path / "cohort", shape=SHAPE, spacing=SPACING, workers=1, progress=again)


def test_a_scanners_file_is_taken_in_as_it_is(bundled: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "us").mkdir()
    shutil.copy(bundled("examples_ybr_color.dcm"), tmp_path / "us" / "a.dcm")
    shutil.copy(bundled("examples_rgb_color.dcm"), tmp_path / "us" / "b.dcm")
    summary = ingest_tvus(tmp_path / "us", tmp_path / "cohort", workers=1)
    assert (summary.cases, summary.rejected) == (1, 1)
    assert pd.read_csv(tmp_path / "cohort" / "rejected.csv")["reason"].tolist() == ["a single frame, not a clip"]
    clip = np.load(next((tmp_path / "cohort" / "tvus").glob("*.npy")))
    assert cv2.Laplacian(clip[0], cv2.CV_64F).std() > 5  # a picture, not a flat field
