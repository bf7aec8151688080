import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from data_modules.cohort import read_manifest
from data_modules.errors import InputError
from data_modules.ingest import ingest_mri, ingest_tvus
from data_modules.ingest.continuity import number_cases, settle
from data_modules.ingest.pipeline import DEFAULTS
from data_modules.ingest.summary import IngestSummary
from data_modules.store import write_array


def write_volume(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    volume = np.random.default_rng(seed).integers(0, 999, (8, 16, 16)).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.diag([4.0, 2.0, 2.0, 1.0])), file)


def ingest(source: Path, out: Path, **options: object) -> IngestSummary:
    return ingest_mri(source, out, shape=(8, 16, 16), workers=1, **options)


def content(cohort: Path) -> dict[str, bytes]:
    return {path.relative_to(cohort).as_posix(): path.read_bytes() for path in cohort.rglob("*") if path.is_file()}


def sources(file: Path) -> dict[str, str]:
    """Case by file."""
    table = pd.read_csv(file, keep_default_na=False)
    return dict(zip(table["source"], table["case_id"], strict=True))


def test_a_source_that_lacks_listed_cases_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    for number in range(4):
        write_volume(tmp_path / "one" / f"P{number}_t2.nii", number)
        write_volume(tmp_path / "two" / f"Q{number}_t2.nii", 10 + number)
    out = tmp_path / "cohort"
    ingest(tmp_path / "one", out)
    before = content(out)
    with pytest.raises(InputError, match=r"two: lacks 4 of the 4 mri cases .*--remove_missing") as caught:
        ingest(tmp_path / "two", out)
    assert "\n" not in str(caught.value)
    assert content(out) == before
    (tmp_path / "one" / "P0_t2.nii").rename(tmp_path / "two" / "P0_t2.nii")
    with pytest.raises(InputError, match="one: lacks 1 of the 4 mri cases"):
        ingest(tmp_path / "one", out)
    summary = ingest(tmp_path / "two", out, remove_missing=True)
    assert (summary.cases, summary.kept) == (5, 1)
    assert len(list((out / "mri").glob("*.npy"))) == 5


def test_what_is_left_out_is_as_the_cohort_was_made(tmp_path: Path) -> None:
    for number in range(3):
        write_volume(tmp_path / "source" / f"P{number}_t2.nii", number)
    out = tmp_path / "cohort"
    first = ingest_mri(tmp_path / "source", out, shape=(6, 12, 12), spacing=(4.0, 3.0, 3.0), n4=True, workers=1)
    write_volume(tmp_path / "source" / "P3_t2.nii", 3)
    again = ingest_mri(tmp_path / "source", out, workers=1)
    assert (first.kept, again.cases, again.kept) == (0, 4, 3)
    for path in read_manifest(out, "mri")["path"]:
        made = json.loads((out / path).with_suffix(".json").read_text())
        assert made["parameters"] == {"shape": [6, 12, 12], "spacing": [4.0, 3.0, 3.0], "n4": True}
        assert (made["stored"]["shape"], made["stored"]["spacing"]) == ([6, 12, 12], [4.0, 3.0, 3.0])
    of_another_set = settle(out, "mri", "umd", dict.fromkeys(DEFAULTS["mri"]), DEFAULTS["mri"])
    assert of_another_set == {"shape": (6, 12, 12), "spacing": (4.0, 3.0, 3.0), "n4": False}
    otherwise = ingest_mri(tmp_path / "source", out, n4=False, workers=1)
    assert (otherwise.cases, otherwise.kept) == (4, 0)
    assert np.load(out / read_manifest(out, "mri")["path"].iloc[0]).shape == (6, 12, 12)


def test_what_is_remade_of_the_same_patient_or_file_is_not_lacking(
    tmp_path: Path, write_series: Callable[..., list[Path]], noise_volume: np.ndarray
) -> None:
    source, out = tmp_path / "source", tmp_path / "cohort"
    for name, description in (("t1", "T1 sag"), ("t2", "T2 sag")):
        write_series(source / "a" / name, noise_volume, SeriesDescription=description, StudyInstanceUID="1.2.3.4.5.6.7")
    write_volume(source / "b" / "scan.nii", 1)
    ingest(source, out)
    before = read_manifest(out, "mri")
    (source / "labels.csv").write_text("patient_id,label,path\nP1,1,a/t1\nP2,0,b/scan.nii\n")
    assert ingest(source, out).labelled == 2  # of another series, and under another patient
    after = read_manifest(out, "mri")
    assert len(after) == len(before) == 2
    assert len(set(after["case_id"]) & set(before["case_id"])) == 1


@pytest.mark.parametrize("kept", [0, 50, -7])
def test_a_damaged_array_is_made_again_under_its_number_by_the_next_ingest(tmp_path: Path, kept: int) -> None:
    source, out = tmp_path / "source", tmp_path / "cohort"
    for number in range(3):
        write_volume(source / f"P1_{number}.nii", number)
    ingest(source, out)
    before = content(out)
    damaged = sorted((out / "mri").glob("*.npy"))[1]
    damaged.write_bytes(damaged.read_bytes()[:kept])
    summary = ingest(source, out)
    assert (summary.cases, summary.kept) == (3, 2)
    assert content(out) == before


def test_a_patients_cases_keep_their_numbers_when_files_are_added(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "cohort"
    for number, name in enumerate("bd"):
        write_volume(source / f"P1_{name}.nii", number)
    ingest(source, out, sources=tmp_path / "before.csv")
    for number, name in enumerate("ace", 2):
        write_volume(source / f"P1_{name}.nii", number)
    assert ingest(source, out, sources=tmp_path / "after.csv").kept == 2
    before, after = sources(tmp_path / "before.csv"), sources(tmp_path / "after.csv")
    assert {file: after[file] for file in before} == before
    assert [after[f"P1_{name}.nii"][-1] for name in "abcde"] == ["3", "1", "4", "2", "5"]


@pytest.mark.parametrize("touched", [False, True])
def test_a_patients_clips_keep_their_numbers_when_one_is_added_to_a_row_s_folder(
    tmp_path: Path, write_avi: Callable[..., Path], tissue_frames: np.ndarray, touched: bool
) -> None:
    source, out = tmp_path / "source", tmp_path / "cohort"

    def add(names: str) -> None:
        for name in names:
            write_avi(source / "Roe" / f"{name}.avi", np.roll(tissue_frames, 7 * ord(name), 2))
            for index, frame in enumerate(tissue_frames):
                picture = source / "Roe" / f"pictures {name}" / f"{index}.png"
                picture.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(picture), np.roll(frame, 7 * ord(name), 0))

    add("bd")
    (source / "labels.csv").write_text("patient_id,label,path\nP1,1,Roe\n")
    ingest_tvus(source, out, shape=(4, 16, 16), workers=1, sources=tmp_path / "before.csv")
    add("ac")
    if touched:  # as by a copy that keeps no times
        for file in source.rglob("*.*"):
            os.utime(file, (1, 1))
    summary = ingest_tvus(source, out, shape=(4, 16, 16), workers=1, sources=tmp_path / "after.csv")
    assert (summary.cases, summary.kept) == (8, 0 if touched else 4)
    before, after = sources(tmp_path / "before.csv"), sources(tmp_path / "after.csv")
    assert len(before) == 4
    assert {file: after[file] for file in before} == before
    assert all("Roe" not in file.read_text() for file in (out / "tvus").glob("*.json"))


def test_clips_of_one_dicom_series_keep_their_numbers_when_all_are_made_anew(
    tmp_path: Path, write_cine: Callable[..., Path], tissue_frames: np.ndarray
) -> None:
    source, out = tmp_path / "source", tmp_path / "cohort"
    for turn in ("bd", "ac"):
        for name in turn:
            write_cine(source / f"{name}.dcm", np.roll(tissue_frames, 7 * ord(name), 2), SeriesInstanceUID="1.2.3")
        ingest_tvus(source, out, shape=(4, 16, 16), frame_rate=len(turn) + 5, workers=1, sources=tmp_path / turn)
        for file in source.iterdir():
            os.utime(file, (1, 1))
    before, after = sources(tmp_path / "bd"), sources(tmp_path / "ac")
    assert {file: after[file] for file in before} == before


def test_numbers_follow_files_then_place_then_series_and_new_images_get_the_lowest_that_are_free(
    tmp_path: Path,
) -> None:
    stored = {
        "p-1": {"fingerprint": "f1", "series": "s1"},
        "p-3": {"fingerprint": "f3", "place": "x3"},
        "p-7": {"fingerprint": "f7", "place": "x1"},
        "q-1": {"fingerprint": "f2", "place": "x2"},
    }
    for case, record in stored.items():
        write_array(tmp_path / f"{case}.npy", np.zeros(1), record)
    images = [
        ("p", {"fingerprint": "new"}),
        ("p", {"fingerprint": "f2"}),  # was another patient's
        ("p", {"fingerprint": "f3"}),
        ("p", {"fingerprint": "changed", "series": "s1"}),
        ("p", {"fingerprint": "part", "series": "s1"}),
        ("p", {"fingerprint": "copied", "place": "x1"}),
        ("r", {"fingerprint": "f1"}),
    ]
    assert number_cases(tmp_path, images) == [2, 4, 3, 1, 5, 7, 1]
    assert number_cases(tmp_path / "nowhere", images) == [1, 2, 3, 4, 5, 6, 1]
    images[4][1]["place"] = "x3"  # has the files of another
    images[3][1]["place"] = "x1"
    assert number_cases(tmp_path, images[:5]) == [2, 4, 3, 7, 1]
