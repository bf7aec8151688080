"""The key of the pseudonyms, and a cohort that is bound to it."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_modules.cohort import read_manifest
from data_modules.errors import InputError
from data_modules.ingest import ingest_mri, ingest_tvus
from data_modules.ingest.pseudonyms import Pseudonyms

KEY, OTHER = "a key for tests, long enough", "another key for tests, as long"


def ingest(source: Path, out: Path, modality: str = "mri", layout: str | None = None) -> None:
    if modality == "mri":
        ingest_mri(source, out, shape=(8, 16, 16), folds=3, workers=1, layout=layout)
    else:
        ingest_tvus(source, out, shape=(6, 16, 16), folds=3, workers=1)


def write_volumes(files: list[Path]) -> None:
    rng = np.random.default_rng(0)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(rng.integers(0, 999, (8, 16, 16)).astype(np.int16), np.diag([4.0, 2, 2, 1])), file)


@pytest.fixture
def source(tmp_path: Path, write_avi: Callable[..., Path], tissue_frames: np.ndarray) -> Path:
    """The same three patients in both modalities, and a public set."""
    folder = tmp_path / "source"
    write_volumes([folder / f"mri/P{number}_t2.nii.gz" for number in range(3)])
    write_volumes([folder / f"public/s000{number}/mri.nii.gz" for number in range(3)])
    for number in range(3):
        write_avi(folder / f"tvus/P{number}.avi", np.roll(tissue_frames, 20 * number, axis=1))
    return folder


def without_check(cohort: Path) -> None:
    """Makes it a cohort of the time before the check."""
    dealing = json.loads((cohort / "folds.json").read_text())
    (cohort / "folds.json").write_text(json.dumps({name: dealing[name] for name in dealing if name != "key_check"}))


@pytest.mark.parametrize("checked", [True, False])
def test_a_renamed_cohort_goes_on_with_its_own_key_alone(source: Path, tmp_path: Path, checked: bool) -> None:
    out, renamed = tmp_path / "cohort", tmp_path / "renamed"
    ingest(source / "mri", out)
    if not checked:
        without_check(out)
    out.rename(renamed)
    for modality in ("tvus", "mri"):
        with pytest.raises(InputError, match=r"renamed\.key: missing, .* move the key that lay beside it here$"):
            ingest(source / modality, renamed, modality)
        assert not (tmp_path / "renamed.key").exists()
    (tmp_path / "renamed.key").touch()
    with pytest.raises(InputError, match=r"shorter than 16 characters; move the key that lay beside it here"):
        ingest(source / "tvus", renamed, "tvus")
    (tmp_path / "cohort.key").rename(tmp_path / "renamed.key")
    ingest(source / "tvus", renamed, "tvus")
    first, second = (set(read_manifest(renamed, modality)["patient_id"]) for modality in ("mri", "tvus"))
    assert first == second


def test_another_key_is_refused_by_a_cohort_that_has_a_check(source: Path, tmp_path: Path) -> None:
    out, key = tmp_path / "cohort", tmp_path / "cohort.key"
    key.write_text(KEY)
    ingest(source / "mri", out)
    without_check(out)
    ingest(source / "mri", out)  # gets it again
    key.write_text(OTHER)
    for modality, layout in (("tvus", None), ("mri", None), ("public", "totalsegmentator-mri")):
        with pytest.raises(InputError, match=r"cohort\.key: not the key of .*cohort; move the key") as caught:
            ingest(source / modality, out, "tvus" if modality == "tvus" else "mri", layout)
        assert "\n" not in str(caught.value)
    key.write_text(KEY)
    ingest(source / "public", out, layout="totalsegmentator-mri")
    ingest(source / "tvus", out, "tvus")
    assert len(read_manifest(out, "mri")) == 6


def test_the_check_of_a_key_is_the_same_for_all_sets_and_not_the_keys_own_text() -> None:
    checks = {Pseudonyms(KEY.encode(), name).key_check for name in ("", "umd")}
    assert len(checks) == 1
    assert checks != {Pseudonyms(OTHER.encode()).key_check}
    assert KEY not in checks.pop()
