"""Whose an image without a header is, which no row describes."""

import math
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_modules.cohort import read_manifest
from data_modules.ingest import ingest_mri
from data_modules.ingest.discovery import patient_of_name
from data_modules.ingest.images import SourceImage
from data_modules.ingest.labels import LabelRow
from data_modules.ingest.matching import Matching

GRID = np.diag([4.0, 2.0, 2.0, 1.0])


def found(path: str) -> SourceImage:
    """As discovery finds it: a volume or video by its name, a folder of pictures by its last ``/``."""
    if path.endswith("/"):
        files = tuple(f"{path}frame{number}.png" for number in range(9))
        return SourceImage(files, "frames", patient_of_name(path[:-1]), path[:-1])
    return SourceImage((path,), "video" if path.endswith("avi") else "nifti", patient_of_name(path), path)


def patients(source: Path, images: Sequence[SourceImage | str], **rows: str) -> dict[str, str]:
    """Patients by file, and reasons of what is left out; rows give patients' paths, or nothing."""
    found_images = [image if isinstance(image, SourceImage) else found(image) for image in images]
    table = [LabelRow(line, patient, 1.0, path) for line, (patient, path) in enumerate(rows.items(), 2)]
    matching = Matching(source, source / "labels.csv", found_images, table, one_a_study=False)
    described = {row.path for row in table}
    for match in matching.matched:
        place = str(Path(match.image.files[0]).parent)
        by_row = {match.image.files[0], place} & described or match.image.patient in rows
        assert by_row or math.isnan(match.label)  # a folder gives no label
    known = {match.image.study: match.patient for match in matching.matched}
    return known | {rejection.source: rejection.reason for rejection in matching.rejections}


@pytest.mark.parametrize("form", ["{}.nii.gz", "{}.avi", "{}/"])
def test_what_lies_beside_an_image_that_a_row_names_is_the_same_patients(tmp_path: Path, form: str) -> None:
    """As a patient of its own it would be trained on while the other image of its patient is tested."""
    names = [form.format(f"{folder}/{name}") for folder in ("A1", "B2") for name in ("T2", "T1", "T2_repeat")]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
    owned = patients(tmp_path, names, A1=names[0].rstrip("/"), B2=names[3].rstrip("/"))
    assert owned == {name.rstrip("/"): name[:2] for name in names}


def test_the_nearest_folder_of_one_patient_counts(tmp_path: Path) -> None:
    files = ["all/a/t2/1.nii", "all/a/t1/1.nii", "all/b/t2/1.nii", "all/b/2.nii", "all/c/2.nii"]
    assert patients(tmp_path, files, A="all/a/t2/1.nii", B="all/b/t2/1.nii") == {
        **{file: file[4].upper() for file in files[:4]},
        "all/c/2.nii": "2",  # nobody of the labels has images in its folder
    }


def test_a_dicom_header_tells_whose_folder_it_is(tmp_path: Path) -> None:
    dicom = SourceImage(("x/dicom/1",), "dicom", "A1", "study", series="1.2.3")
    assert patients(tmp_path, [dicom, "x/T1.nii"], A1="") == {"study": "A1", "x/T1.nii": "A1"}


def test_in_a_folder_of_several_patients_a_name_is_hers_or_the_file_is_rejected(tmp_path: Path) -> None:
    files = ["all/one.nii", "all/two.nii", "all/A1_T1.nii", "all/three.nii"]
    owned = patients(tmp_path, files, A1="all/one.nii", B2="all/two.nii")
    assert owned.pop("all/three.nii") == (
        "its folder holds images of several patients of the label CSV, and its name starts with none of them: "
        "give it a row, or leave it out"
    )
    assert owned == {"all/one.nii": "A1", "all/two.nii": "B2", "all/A1_T1.nii": "A1"}


@pytest.mark.parametrize("folder", ["", "all/"])
@pytest.mark.parametrize("n_rows", [1, 2])
def test_where_the_described_names_start_with_patients_all_do(tmp_path: Path, folder: str, n_rows: int) -> None:
    files = [f"{folder}{name}.nii" for name in ("A1_T2", "B2_T2", "A1_T1", "C3_T2")]
    rows = dict(zip(("A1", "B2"), files[:n_rows], strict=False))
    assert patients(tmp_path, files, **rows) == dict(zip(files, ("A1", "B2", "A1", "C3"), strict=True))


def test_a_folder_with_the_name_of_its_patient_is_hers_alone(tmp_path: Path) -> None:
    files = ["A1_Roe/A1_T2.nii", "A1_Roe/T1.nii"]
    assert patients(tmp_path, files, A1=files[0]) == dict.fromkeys(files, "A1")
    assert patients(tmp_path, files, A1="") == dict.fromkeys(files, "A1")  # by her name


def test_a_name_in_several_patients_folders_is_nobodys(tmp_path: Path) -> None:
    files = ["one/A1_T2.nii", "one/T1.nii", "two/B2_T2.nii", "two/T1.nii"]
    assert patients(tmp_path, files, A1=files[0], B2=files[2]) == dict(
        zip(files, ("A1", "A1", "B2", "B2"), strict=True)
    )


def test_a_number_that_a_patient_has_may_be_a_place_in_a_row(tmp_path: Path) -> None:
    files = ["x/1.nii", "x/2.nii", "y/1.nii", "2.nii"]
    rows = {"7": "x/1.nii", "8": "y/1.nii", "2": ""}
    assert patients(tmp_path, files, **rows) == dict(zip(files, ("7", "7", "8", "2"), strict=True))


def test_beside_the_labels_a_start_that_stands_for_several_patients_is_rejected(tmp_path: Path) -> None:
    files = ["T2_a.nii", "T2_b.nii", "T2_a_repeat.nii", "c/T2_a.nii"]
    owned = patients(tmp_path, files, A1=files[0], B2=files[1])
    assert "stands for several patients" in owned["T2_a_repeat.nii"]
    assert owned["c/T2_a.nii"] == "c/T2_a.nii"  # nobody of the labels has images there


def test_no_volume_of_a_patient_with_a_fold_is_without_one(tmp_path: Path) -> None:
    source, rng = tmp_path / "source", np.random.default_rng(0)
    rows = ["patient_id,label,path"]
    for number in range(6):
        (source / f"P{number}").mkdir(parents=True)
        rows.append(f"P{number},{number % 2},P{number}/T2.nii.gz")
        for name in ("T1", "T2", "T2_repeat"):
            volume = rng.integers(0, 999, (8, 16, 16)).astype(np.int16)
            nib.save(nib.Nifti1Image(volume, GRID), source / f"P{number}" / f"{name}.nii.gz")
    (source / "labels.csv").write_text("\n".join(rows))
    summary = ingest_mri(source, tmp_path / "cohort", shape=(8, 16, 16), folds=3, workers=1)
    assert (summary.patients, summary.labelled) == (6, 6)
    assert read_manifest(tmp_path / "cohort", "mri")["fold"].notna().all()
