import math
from dataclasses import fields
from pathlib import Path

import pytest

from data_modules.errors import InputError
from data_modules.ingest.labels import LabelRow, check_given_folds, read_labels
from data_modules.simulate.covariates import Covariates


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("told", [False, True])
def test_exports_of_all_kinds_are_read(file: Path, encoding: str, separator: str, told: bool) -> None:
    rows = [" patient_id ", "Label", "path"], ["007", "1", "Müller\\s1\\"], ["8", "", ""], ["", "", ""]
    first = [f"sep={separator}"] if told else []  # as Excel has it
    file.write_bytes("\r\n".join([*first, *(separator.join(row) for row in rows)]).encode(encoding))
    found = read_labels(file).rows
    assert [(row.patient, row.label, row.path) for row in found[:1]] == [("007", 1.0, "Müller/s1")]
    assert math.isnan(found[1].label)
    assert [row.line for row in found] == ([3, 4] if told else [2, 3])


def test_numeric_columns_are_covariates_and_identifiers_are_not(file: Path) -> None:
    file.write_text(
        "patient_id,label,age,pain,name,mrn,visit\na,1,35,,Roe,4711123,20210704\nb,0,41.5,3,Doe,4711124,20210705\n"
    )
    labels = read_labels(file)
    assert labels.rows[1].covariates == {"age": 41.5, "pain": 3.0}
    assert math.isnan(labels.rows[0].covariates["pain"])
    assert labels.ignored == ["name", "mrn", "visit"]
    assert labels.rows[0].personal == ("Roe", "4711123")


@pytest.mark.parametrize(
    "name",
    [
        *("MRN", "birth_date", "dateofbirth", "dob", "Geburtsdatum", "geb.", "Gebdat", "birth", "exam_date", "Datum"),
        *(
            "postcode",
            "Postal code",
            "zip",
            "zip_code",
            "PLZ",
            "Postleitzahl",
            "street",
            "phone_ext",
            "tel.",
            "Telefon",
        ),
        *("id", "patient id", "PatientID", "study_id", "id_2", "uid", "SSN", "NHS", "accession", "initials", "Akte"),
        *("fall-number", "Fallnummer", "Fall_Nr", "case_no", "chart no", "Aktenzeichen", "medical_record", "pat_nr"),
    ],
)
def test_a_column_with_an_identifiers_name_is_no_covariate_however_small_its_numbers(file: Path, name: str) -> None:
    file.write_text(f"patient_id,label,{name},age\na,1,48211,30\nb,0,7,31\n")
    labels = read_labels(file)
    assert labels.ignored == [name.lower()]
    assert list(labels.rows[0].covariates) == ["age"]
    assert [row.personal for row in labels.rows] == [("48211",), ()]


def test_findings_and_counts_are_covariates(file: Path) -> None:
    recorded = [field.name for field in fields(Covariates)]
    others = ["version", "anteversion", "births", "number_of_births", "geburten", "birth_control", "fibroid", "steroid"]
    others += ["postmenopausal", "post_op", "pain_post", "hotel", "bakterien", "intakte_tuben", "falls", "case_control"]
    others += ["snr", "smoking_no", "hospital_stay", "height", "nodules", "mobile_ovary", "initial_pain", "pat_age"]
    names = [*recorded, *others]
    file.write_text(f"patient_id,label,{','.join(names)}\na,1,{','.join('3' * len(names))}\n")
    assert list(read_labels(file).rows[0].covariates) == names


def test_columns_without_a_name_do_not_count_as_the_same(file: Path) -> None:
    file.write_text("patient_id,label,,\na,1,,\n")
    assert [row.patient for row in read_labels(file).rows] == ["a"]


@pytest.mark.parametrize(
    ("text", "reason", "kept"),
    [
        ("patient_id,label\nok,1\nRoe,yes\n", "its label is no label: use 1", True),
        ("patient_id,label\nok,1\nRoe,2\n", "its label is no label: use 1", True),
        ("patient_id,label,fold\nok,1,0\nRoe,1,x\n", "its fold is no fold", True),
        ("patient_id,label,fold\nok,1,0\nRoe,1,0.5\n", "its fold is no fold", True),
        ("patient_id,label\nok,1\n,1\n", "it has no patient_id", False),
        ("patient_id,label\nok,1\nRoe,1,2\n", "it has 3 cells for 2 columns", False),
    ],
)
def test_what_is_wrong_with_a_row_is_listed_and_its_label_is_unknown(
    file: Path, text: str, reason: str, kept: bool
) -> None:
    file.write_text(text)
    labels = read_labels(file)
    assert [row.patient for row in labels.rows] == ["ok", "Roe"][: 1 + kept]
    assert all(math.isnan(row.label) and row.fold is None for row in labels.rows[1:])
    assert [rejection.source for rejection in labels.rejections] == ["labels.csv row 3"]
    assert reason in labels.rejections[0].reason
    assert "Roe" not in labels.rejections[0].reason  # a cell in the wrong column may hold a name


def test_a_row_with_a_wrong_label_keeps_the_rest_and_one_with_a_wrong_fold_contradicts_no_other(file: Path) -> None:
    file.write_text("patient_id,label,fold,path,age\na,o,1,x,30\na,1,1st,y,31\na,1,1,z,32\n")
    rows = read_labels(file).rows
    assert [(row.patient, row.path, row.fold, row.covariates["age"]) for row in rows] == [
        ("a", "x", 1, 30.0),
        ("a", "y", None, 31.0),
        ("a", "z", 1, 32.0),
    ]
    assert [row.label for row in rows[2:]] == [1.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"patient_id\na\n", "has no column label"),
        (b"", "has no column patient_id"),
        (b"patient_id,label,case_id\na,1,0\n", "has a column case_id, which the manifest has itself; rename"),
        (b"patient_id,label, Split \na,1,0\n", "has a column split, which the manifest has itself; rename"),
        (b"patient_id,label,Label\na,1,\n", "has more than one column label, in capitals or not; rename"),
        (b"patient_id,label,age,age\na,1,30,31\n", "has more than one column age"),
        (b"patient_id,label,fold,path\na,1,0,x\na,1,1,y\n", "patient a is in two folds"),
        (b'patient_id,label\n"' + b"x" * 200_000 + b'",1\n', "not a CSV"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_labels(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_fold_that_the_cohort_will_not_have_is_told_with_its_row(file: Path) -> None:
    rows = [LabelRow(2, "a", 1.0), LabelRow(3, "b", 1.0, fold=4), LabelRow(4, "c", 1.0, fold=0)]
    check_given_folds(rows, file, 5)
    with pytest.raises(InputError, match=r"labels\.csv: row 3 has fold 4; with --folds 4 give 0 to 3"):
        check_given_folds(rows, file, 4)
