from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from data_modules.ingest import ingest_mri
from data_modules.ingest.continuity import number_cases
from data_modules.ingest.summary import IngestSummary
from data_modules.store import write_array


def write_volume(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    volume = np.random.default_rng(seed).integers(0, 999, (8, 16, 16)).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.diag([4.0, 2.0, 2.0, 1.0])), file)


def ingest(source: Path, out: Path, **options: object) -> IngestSummary:
    return ingest_mri(source, out, shape=(8, 16, 16), workers=1, **options)


def sources(file: Path) -> dict[str, str]:
    """Case by file."""
    table = pd.read_csv(file, keep_default_na=False)
    return dict(zip(table["source"], table["case_id"], strict=True))


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


def test_numbers_follow_files_then_series_and_new_images_get_the_lowest_that_are_free(tmp_path: Path) -> None:
    stored = {"p-1": {"fingerprint": "f1", "series": "s1"}, "p-3": {"fingerprint": "f3"}, "q-1": {"fingerprint": "f2"}}
    for case, record in stored.items():
        write_array(tmp_path / f"{case}.npy", np.zeros(1), record)
    images = [
        ("p", {"fingerprint": "new"}),
        ("p", {"fingerprint": "f2"}),  # was another patient's
        ("p", {"fingerprint": "f3"}),
        ("p", {"fingerprint": "changed", "series": "s1"}),
        ("p", {"fingerprint": "part", "series": "s1"}),
        ("r", {"fingerprint": "f1"}),
    ]
    assert number_cases(tmp_path, images) == [2, 4, 3, 1, 5, 1]
    assert number_cases(tmp_path / "nowhere", images) == [1, 2, 3, 4, 5, 1]
