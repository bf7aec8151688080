import math
from pathlib import Path

import pytest

from data_modules.errors import InputError
from data_modules.ingest.labels import read_labels


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_exports_of_all_kinds_are_read(file: Path, encoding: str, separator: str) -> None:
    rows = [" patient_id ", "Label", "path"], ["007", "1", "Müller\\s1\\"], ["8", "", ""], ["", "", ""]
    file.write_bytes("\r\n".join(separator.join(row) for row in rows).encode(encoding))
    found, _ = read_labels(file)
    assert [(row.patient, row.label, row.path) for row in found[:1]] == [("007", 1.0, "Müller/s1")]
    assert math.isnan(found[1].label)
    assert len(found) == 2


def test_numeric_columns_are_covariates_and_identifiers_are_not(file: Path) -> None:
    file.write_text(
        "patient_id,label,age,pain,name,mrn,visit\na,1,35,,Roe,4711123,20210704\nb,0,41.5,3,Doe,4711124,20210705\n"
    )
    rows, ignored = read_labels(file)
    assert rows[1].covariates == {"age": 41.5, "pain": 3.0}
    assert math.isnan(rows[0].covariates["pain"])
    assert ignored == ["name", "mrn", "visit"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient_id\na\n", "has no column label"),
        ("", "has no column patient_id"),
        ("patient_id,label\na,1\nb,yes\n", "row 3 has label 'yes'; use 1"),
        ("patient_id,label\na,2\n", "row 2 has label '2'; use 1"),
        ("patient_id,label\n,1\n", "row 2 has no patient_id"),
        ("patient_id,label\na,1,2\n", "row 2 has 3 cells for 2 columns"),
        ("patient_id,label,fold\na,1,x\n", "row 2 has fold 'x'"),
        ("patient_id,label,fold,path\na,1,0,x\na,1,1,y\n", "patient a is in two folds"),
    ],
)
def test_a_wrong_row_is_told_in_one_line(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_labels(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
