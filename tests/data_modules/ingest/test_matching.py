import math
from dataclasses import replace
from pathlib import Path

import pytest

from data_modules.ingest.images import SourceImage
from data_modules.ingest.labels import LabelRow
from data_modules.ingest.matching import Matching


def image(
    file: str, patient: str, study: str = "", preference: tuple[float, ...] = (), objection: str = ""
) -> SourceImage:
    series = f"series of {file}" if study else ""
    return SourceImage(
        (file,), "dicom", patient, study or file, series=series, preference=preference, objection=objection
    )


def match(
    tmp_path: Path, images: list[SourceImage], rows: list[LabelRow], one_a_study: bool = True
) -> tuple[dict, dict]:
    for file in (file for found in images for file in found.files):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    matching = Matching(tmp_path, tmp_path / "labels.csv", images, rows, one_a_study)
    return {m.image.files[0]: (m.patient, m.label) for m in matching.matched}, {
        r.source: r.reason for r in matching.rejections
    }


def test_a_row_with_path_describes_a_file_or_a_folder(tmp_path: Path) -> None:
    rows = [LabelRow(2, "a", 1.0, "x/one"), LabelRow(3, "b", 0.0, "y/two.nii")]
    matched, rejected = match(tmp_path, [image("x/one/1", "h1", "s1"), image("y/two.nii", "two")], rows)
    assert matched == {"x/one/1": ("a", 1.0), "y/two.nii": ("b", 0.0)}
    assert not rejected


def test_a_row_without_path_describes_all_images_of_its_patient(tmp_path: Path) -> None:
    images = [image("1", "a", "s1"), image("2", "a", "s2"), image("3", "b", "s3")]
    matched, _ = match(tmp_path, images, [LabelRow(2, "a", 1.0)])
    assert matched["1"] == matched["2"] == ("a", 1.0)
    assert math.isnan(matched["3"][1])


def test_one_volume_a_study_is_chosen_and_every_clip(tmp_path: Path) -> None:
    images = [
        image("t1", "a", "s", (False, True)),
        image("t2", "a", "s", (True, False)),
        image("best", "a", "s", (True, True)),
    ]
    matched, rejected = match(tmp_path, images, [LabelRow(2, "a", 1.0)])
    assert set(matched) == {"best"}
    assert set(rejected) == {"t1", "t2"}
    matched, rejected = match(tmp_path, images, [LabelRow(2, "a", 1.0)], one_a_study=False)
    assert set(matched) == {"t1", "t2", "best"}


def test_of_a_study_of_which_a_row_names_a_series_nothing_else_is_used(tmp_path: Path) -> None:
    matched, rejected = match(
        tmp_path, [image("t1/1", "a", "s", (False,)), image("t2/1", "a", "s", (True,))], [LabelRow(2, "a", 1.0, "t1")]
    )
    assert matched == {"t1/1": ("a", 1.0)}
    assert "another series" in rejected["t2/1"]


def test_an_unnamed_image_of_a_named_patient_is_hers_too(tmp_path: Path) -> None:
    """The CSV has research numbers, the files hospital numbers: the other study must not pass for another patient's."""
    images = [image("one/1", "hospital-7", "s1"), image("two/1", "hospital-7", "s2")]
    matched, _ = match(tmp_path, images, [LabelRow(2, "research-1", 1.0, "one")])
    assert matched["two/1"][0] == "research-1"
    assert math.isnan(matched["two/1"][1])


def test_a_patient_id_that_stands_for_several_patients_is_not_trusted(tmp_path: Path) -> None:
    images = [image(f"{n}/1", "ANON", f"s{n}") for n in range(3)]
    matched, rejected = match(tmp_path, images, [LabelRow(2, "a", 1.0, "0"), LabelRow(3, "b", 0.0, "1")])
    assert set(matched) == {"0/1", "1/1"}
    assert "several patients" in rejected["2/1"]


def test_derived_images_are_used_only_where_a_row_names_them(tmp_path: Path) -> None:
    images = [image("a/1", "a", "s1", objection="derived"), image("b/1", "b", "s2", objection="derived")]
    matched, rejected = match(tmp_path, images, [LabelRow(2, "a", 1.0, "a")])
    assert set(matched) == {"a/1"}
    assert rejected == {"b/1": "derived"}


def test_rows_without_images_are_rejected_with_their_reasons(tmp_path: Path) -> None:
    rows = [
        LabelRow(2, "a", 1.0, "gone"),
        LabelRow(3, "b", 1.0),
        LabelRow(4, "c", 1.0, "../outside"),
        LabelRow(5, "d", 0.0, "one"),
        LabelRow(6, "d", 0.0, "one"),
        LabelRow(7, "e", 0.0, "empty"),
    ]
    (tmp_path / "empty").mkdir()
    matched, rejected = match(tmp_path, [image("one/1", "x", "s")], rows)
    assert set(matched) == {"one/1"}
    assert rejected == {
        "labels.csv row 2: gone": "it names a path that is not there",
        "labels.csv row 3": "it names a patient of whom there is no usable image",
        "labels.csv row 4: ../outside": "it names a path outside the source folder",
        "labels.csv row 6: one": "it repeats row 5",
        "labels.csv row 7: empty": "it names a path that holds no usable image",
    }


@pytest.mark.parametrize("path", ["one", ""])
def test_rows_that_disagree_about_a_label_keep_the_patient_and_her_covariates(tmp_path: Path, path: str) -> None:
    rows = [LabelRow(2, "a", 1.0, path, covariates={"age": 30.0}), LabelRow(3, "a", 0.0, path)]
    images = [image("one/1", "a" if not path else "hospital-7", "s")]
    matching = Matching(tmp_path, tmp_path / "labels.csv", images, rows, one_a_study=True)
    (found,) = matching.matched
    assert (found.patient, found.covariates) == ("a", {"age": 30.0})
    assert math.isnan(found.label)
    reasons = [rejection.reason for rejection in matching.rejections]
    assert reasons == ["rows 2, 3 describe the same images and disagree: their label is unknown"] * 2


def test_an_image_that_rows_give_to_two_patients_is_left_out(tmp_path: Path) -> None:
    """As somebody's of her own it could be trained on while the other image of its patient is tested."""
    rows = [LabelRow(2, "a", 1.0, "one"), LabelRow(3, "b", 1.0, "one"), LabelRow(4, "c", 1.0)]
    images = [image("one/1", "h1", "s1"), image("more/1", "h1", "s1"), image("two/1", "h1", "s2")]
    matched, rejected = match(tmp_path, [*images, image("three/1", "h3", "s3")], rows[:2])
    assert set(matched) == {"three/1"}
    assert rejected.pop("more/1") == "another series of the study is given to several patients"
    assert "several patients of the label CSV" in rejected.pop("two/1")
    reason = "rows 2, 3 give the same images to several patients: none of them is used"
    assert rejected == {"one/1": reason, "labels.csv row 2: one": reason, "labels.csv row 3: one": reason}
    rows[2] = replace(rows[2], path="one/1")  # a closer row settles it
    assert match(tmp_path, images[:1], rows)[0] == {"one/1": ("c", 1.0)}
    rows[2] = LabelRow(4, "a", 0.0)  # and so does a header with an id of the CSV, for her other images
    images = [image("one/1", "a", "s1"), image("two/1", "a", "s2")]
    assert match(tmp_path, images, rows)[0] == {"two/1": ("a", 0.0)}


def test_of_a_named_folder_the_best_series_is_used_and_never_one_with_an_objection(tmp_path: Path) -> None:
    images = [image("p/scout", "a", "s", (9,), "a localiser"), image("p/t2", "a", "s", (1,))]
    matched, rejected = match(tmp_path, images, [LabelRow(2, "a", 1.0, "p")])
    assert set(matched) == {"p/t2"}
    assert rejected == {"p/scout": "a localiser"}
    images = [image(f"q/{n}", "b", "s", (n,), "a localiser") for n in range(2)]
    matched, rejected = match(tmp_path, images, [LabelRow(2, "b", 1.0, "q")])
    assert not matched
    assert "name one of them" in rejected["labels.csv row 2: q"]


def test_a_row_that_names_a_folder_of_several_patients_or_studies_is_rejected(tmp_path: Path) -> None:
    """The CSV's ids need not be the headers', so that nobody could tell whose image would be used."""
    images = [image(f"batch/p{n}/1", f"h{n}", f"s{n}", (n,)) for n in range(3)]
    matched, rejected = match(tmp_path, images, [LabelRow(2, "a", 1.0, "batch"), LabelRow(3, "h1", 0.0)])
    assert rejected == {"labels.csv row 2: batch": "it names a folder of several patients: name one file or series"}
    assert matched["batch/p1/1"] == ("h1", 0.0)
    assert {patient for patient, _ in matched.values()} == {"h0", "h1", "h2"}
    rows = [LabelRow(2, "a", 1.0, "batch"), *(LabelRow(3 + n, f"b{n}", 0.0, f"batch/p{n}") for n in range(2))]
    matched, rejected = match(tmp_path, images, rows)  # closer rows leave one patient
    assert matched["batch/p2/1"] == ("a", 1.0)
    assert not rejected
    images = [image(f"two/{n}/1", "h", f"s{n}", (n,)) for n in range(2)]
    matched, rejected = match(tmp_path, images, [LabelRow(2, "a", 1.0, "two")])
    assert rejected == {"labels.csv row 2: two": "it names a folder of several studies: name one file or series"}
    assert not match(tmp_path, images, [LabelRow(2, "a", 1.0, "two")], one_a_study=False)[1]  # clips are all used


@pytest.mark.parametrize(("names", "several"), [("abc", True), ("123", False), ("xyz", False)])
def test_names_of_files_part_a_folder_only_where_they_are_patients_of_the_labels(
    tmp_path: Path, names: str, several: bool
) -> None:
    images = [replace(image(f"folder/{name}.nii", name), format="nifti") for name in names]
    rows = [LabelRow(2, "own", 1.0, "folder"), *(LabelRow(n, patient, 0.0) for n, patient in enumerate("abc123", 3))]
    _, rejected = match(tmp_path, images, rows)
    assert ("several patients" in rejected.get("labels.csv row 2: folder", "")) == several


@pytest.mark.parametrize("path", ["", "sweeps"])
@pytest.mark.parametrize(
    ("pictures", "several"),
    [
        (("a_1", "a_2", "b_1"), True),
        (("7_1", "7_2", "8_1", "8_2"), True),
        (("7", "8", "9"), False),  # the places of the frames
        (("x_1", "y_1"), False),
        (("a_1", "a_2"), False),
    ],
)
def test_pictures_of_several_patients_make_no_clip(
    tmp_path: Path, pictures: tuple[str, ...], several: bool, path: str
) -> None:
    files = tuple(f"sweeps/{picture}.png" for picture in pictures)
    rows = [LabelRow(2, "a", 1.0, path), *(LabelRow(n, patient, 0.0) for n, patient in enumerate("b78", 3))]
    matched, rejected = match(tmp_path, [SourceImage(files, "frames", "sweeps", "sweeps")], rows, one_a_study=False)
    assert (len(matched) == 0) == several
    assert any("start with the names of several patients" in reason for reason in rejected.values()) == several


def test_series_without_an_id_of_their_patient_or_study_are_told_apart_by_nothing(tmp_path: Path) -> None:
    blank = image("folder/1/1", "1.2.3.4.5.6", "1.2.3.4.5.6")
    images = [replace(blank, series="1.2.3.4.5.6"), image("folder/2/1", "1.2.3.4.5.7", "1.2.3.4.5.6")]
    matched, rejected = match(tmp_path, images, [LabelRow(2, "a", 1.0, "folder")])
    assert len(matched) == 1
    assert "labels.csv row 2: folder" not in rejected


def test_the_account_says_what_was_used_and_why(tmp_path: Path) -> None:
    images = [
        replace(image("t1", "a", "s", (1,)), choice={"rule": "any"}),
        replace(image("t2", "a", "s", (3,)), choice={"rule": "T2", "slices": 20}),
        image("scout", "a", "s", (3,), "a localiser"),
    ]
    matching = Matching(tmp_path, tmp_path / "labels.csv", images, [], one_a_study=True)
    assert matching.account == {"used as T2": 1, "left out: another series is used": 1, "left out: a localiser": 1}
    assert {r.source: r.reason for r in matching.rejections}["t1"].endswith("(T2, 20 slices)")
