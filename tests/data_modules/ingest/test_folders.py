"""Whose an image without a header, or an id in it, is, which no row describes."""

import math
from collections.abc import Sequence
from dataclasses import replace
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
        by_folder = any(rows.get(patient_of_name(part)) == "" for part in Path(place).parts)
        assert by_row or by_folder or math.isnan(match.label)  # a folder of another name gives no label
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


def blank(path: str, study: str) -> SourceImage:
    """A DICOM series without a PatientID."""
    return SourceImage((path,), "dicom", f"1.2.826.0.1.{study}", study, series=f"1.2.826.0.2.{study}")


def test_a_dicom_series_without_an_id_is_the_patients_of_whose_folder_it_is_part(tmp_path: Path) -> None:
    images = [blank("one/2019/1", "1"), blank("one/2021/1", "2"), blank("two/1", "3"), blank("three/1", "4")]
    for image in images:
        (tmp_path / image.files[0]).parent.mkdir(parents=True)
    owned = patients(tmp_path, [*images, "one/T1.nii"], A1="one/2019", B2="two")
    assert owned == {"1": "A1", "2": "A1", "3": "B2", "4": "1.2.826.0.1.4", "one/T1.nii": "A1"}
    named = replace(images[1], patient="A7")
    assert patients(tmp_path, [images[0], named], A1="one/2019") == {"1": "A1", "2": "A7"}, "its header counts"


def test_a_dicom_series_without_an_id_in_a_folder_of_several_patients_is_rejected(tmp_path: Path) -> None:
    images = [blank(f"all/{number}", str(number)) for number in range(3)]
    owned = patients(tmp_path, [*images, blank("all/more/1", "9")], A1="all/0", B2="all/1")
    assert owned == {
        "0": "A1",
        "1": "B2",
        "all/2": "its folder holds images of several patients of the label CSV, and it has no PatientID: "
        "give it a row, or leave it out",
        "9": "1.2.826.0.1.9",
    }


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


@pytest.mark.parametrize("form", ["{}.nii.gz", "{}.avi", "{}/"])
def test_a_row_without_path_describes_a_folder_of_its_patients_name(tmp_path: Path, form: str) -> None:
    files = [form.format(name) for name in ("A1/T2", "A1/T1", "B2_Roe/2021/T2", "C3/T2", "A1/other/T2")]
    rows = [LabelRow(2, "A1", 1.0, ""), LabelRow(3, "B2", 0.0, ""), LabelRow(4, "D4", 0.0, "")]
    images = [found(file) for file in files]
    volumes = Matching(tmp_path, tmp_path / "labels.csv", images, rows, one_a_study=True)
    clips = Matching(tmp_path, tmp_path / "labels.csv", images, rows, one_a_study=False)
    all_clips = [(match.image.study, match.patient, match.label) for match in clips.matched]
    names = [file.rstrip("/") for file in files]
    owners, labels = ("A1", "A1", "B2", "", "A1"), (1.0, 1.0, 0.0, math.nan, 1.0)
    for name, owner, label in zip(names, owners, labels, strict=True):
        found_one = next(each for each in all_clips if each[0] == name)
        assert found_one[1] == (owner or found_one[1]) != ""
        assert found_one[2:] == pytest.approx((label,), nan_ok=True)
    chosen = {match.image.study for match in volumes.matched}
    assert chosen == set(names) - ({names[1]} if form.endswith("gz") else set()), "a study is one folder of NIfTI files"
    assert [rejection.reason for rejection in clips.rejections] == [
        "it names a patient of whom there is no usable image"
    ]


def test_a_folder_called_by_a_number_may_be_anything_and_is_asked_for(tmp_path: Path) -> None:
    owned = patients(tmp_path, ["1/T2.nii", "2/T2.nii"], **{"1": "", "3": ""})
    assert owned["labels.csv row 2"].endswith("no usable image: give the folder of that name as its path")
    assert owned["labels.csv row 3"].endswith("no usable image")
    assert owned["1/T2.nii"] == "1/"
    assert owned["2/T2.nii"] == "2/", "neither the row's patient nor the other's"


@pytest.mark.parametrize("form", ["{}.nii.gz", "{}.avi", "{}/"])
def test_where_most_folders_hold_one_name_the_folder_is_the_patient(tmp_path: Path, form: str) -> None:
    kinds = {"anna": ["T2", "T1"], "berta": ["T2"], "clara": ["T2", "T1", "dwi"], "doris": ["T2"], "emma": ["pelvis"]}
    files = {form.format(f"{name}/{kind}"): name for name, inside in kinds.items() for kind in inside}
    files[form.format("emma/pelvis")] = "pelvis"  # nothing tells that this is not her name
    assert patients(tmp_path, list(files)) == {file.rstrip("/"): patient for file, patient in files.items()}


def test_of_the_folders_above_the_nearest_that_is_not_called_as_most_is_the_patient(tmp_path: Path) -> None:
    files = {f"data/sub-{n}/anat/T2w.nii": f"sub-{n}" for n in range(5)}
    assert patients(tmp_path, list(files)) == files
    visits = {"data/sub-1/first/anat/T2w.nii": "sub-1", "data/sub-2/first/anat/T2w.nii": "sub-2"}
    visits |= {"data/sub-3/first/anat/T2w.nii": "sub-3", "data/sub-3/second/anat/T2w.nii": "second"}
    assert patients(tmp_path, list(visits)) == visits
    sites = {f"{site}/p{n}/T2.nii": f"{site}/p{n}/" for site in ("one", "two") for n in range(4)}
    assert patients(tmp_path, list(sites)) == sites, "another site has a p0, too"


def test_names_of_patients_in_folders_of_sequences_or_visits_tell(tmp_path: Path) -> None:
    files = {f"{kind}/{name}.nii": name for kind in ("T1", "T2") for name in ("anna", "berta", "clara")}
    assert patients(tmp_path, list(files)) == files
    for visits in ([2, 2, 2], [4, 1, 1]):
        each = [(f"sub-{n}", f"ses-{m}") for n, number in enumerate(visits) for m in range(number)]
        files = {f"{patient}/{visit}/anat/{patient}_{visit}_T2w.nii": patient for patient, visit in each}
        assert patients(tmp_path, list(files)) == files


def test_folders_of_nobody_in_the_labels_are_not_one_patients_because_one_row_names_such_a_file(tmp_path: Path) -> None:
    files = [f"{name}/T2.nii" for name in ("anna", "berta", "clara", "doris")]
    owned = patients(tmp_path, files, A1=files[0])
    assert owned == dict(zip(files, ("A1", "berta", "clara", "doris"), strict=True))


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


def volumes_of(source: Path, images: Sequence[SourceImage], *rows: LabelRow) -> tuple[dict[str, float], dict[str, str]]:
    """Labels of the volumes that are used, and reasons of the others."""
    matching = Matching(source, source / "labels.csv", images, rows, one_a_study=True)
    return (
        {match.image.study: match.label for match in matching.matched},
        {rejection.source: rejection.reason for rejection in matching.rejections},
    )


@pytest.mark.parametrize("patient", ["P0", "12"])
@pytest.mark.parametrize("folder", ["", "export/"])
def test_of_a_patients_volumes_in_one_folder_the_best_is_used(tmp_path: Path, folder: str, patient: str) -> None:
    """As a converter writes the series of a study."""
    files = [f"{folder}{patient}_{name}.nii" for name in ("inphase", "T2_tse_sag", "T1_vibe")]
    images = [replace(found(file), preference=(place,)) for file, place in zip(files, (1, 4, 2), strict=True)]
    used, left_out = volumes_of(tmp_path, images, LabelRow(2, patient, 1.0))
    assert used == {files[1]: 1.0}
    assert left_out == dict.fromkeys((files[0], files[2]), "another series of the study is used")
    elsewhere = found(f"second/{patient}_T2.nii")
    assert volumes_of(tmp_path, [*images, elsewhere], LabelRow(2, patient, 1.0))[0] == {
        files[1]: 1.0,
        elsewhere.study: 1.0,
    }


def test_beside_a_volume_that_a_row_names_no_other_of_its_patient_is_used(tmp_path: Path) -> None:
    images = [found(f"A1/{name}.nii") for name in ("T2", "T1", "T2_repeat")]
    used, left_out = volumes_of(tmp_path, images, LabelRow(2, "A1", 1.0, "A1/T2.nii"))
    assert used == {"A1/T2.nii": 1.0}
    assert set(left_out.values()) == {"another series of the study is used, which the labels name"}
    rows = [LabelRow(2, "A1", 1.0, "A1/T2.nii"), LabelRow(3, "A1", 1.0, "A1/T1.nii")]
    assert set(volumes_of(tmp_path, images, *rows)[0]) == {"A1/T2.nii", "A1/T1.nii"}


def test_volumes_of_nobody_of_the_labels_are_all_used(tmp_path: Path) -> None:
    """The start of a name need not be a patient's there."""
    images = [found(f"image_{number}.nii") for number in range(5)]
    assert len(volumes_of(tmp_path, images, LabelRow(2, "A1", 1.0))[0]) == 5


def test_of_a_converters_files_the_sagittal_t2_is_used_and_no_segmentation(tmp_path: Path) -> None:
    source, rng = tmp_path / "source", np.random.default_rng(0)
    source.mkdir()
    sagittal, axial = np.diag([4.0, 1.0, 1.0, 1.0]), np.diag([1.0, 1.0, 4.0, 1.0])
    for number in range(3):
        for name, grid, top in (
            ("T2_ax", axial, 999),
            ("T1_vibe_sag", sagittal, 999),
            ("T2_drawn_on", sagittal, 2),
            ("T2_seen", sagittal, 999),
        ):
            volume = rng.integers(0, top, (12, 16, 20)).astype(np.int16)
            nib.save(nib.Nifti1Image(volume, grid), source / f"P{number}_{name}.nii.gz")
        (source / f"P{number}_T2_cut_off.nii.gz").write_bytes((source / f"P{number}_T2_seen.nii.gz").read_bytes()[:900])
    (source / "labels.csv").write_text("patient_id,label\nP0,0\nP1,1\nP2,0")
    out, private = tmp_path / "cohort", tmp_path / "sources.csv"
    summary = ingest_mri(source, out, shape=(8, 16, 16), folds=3, workers=1, sources=private)
    assert (summary.cases, summary.labelled, summary.defects) == (3, 3, 0)
    assert summary.account == {"used as T2 sagittal": 3, "left out: another series is used": 12}
    used = [line.split(",")[1] for line in private.read_text().splitlines() if line.startswith("mri-")]
    assert used == [f"P{number}_T2_seen.nii.gz" for number in range(3)]
