"""One patient's id in two spellings."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_modules.cohort import read_manifest
from data_modules.errors import InputError
from data_modules.ingest import ingest_mri, ingest_tvus
from data_modules.ingest.pseudonyms import unify_spelling


@pytest.mark.parametrize(
    "spellings",
    [
        ("0012", "12", "12.0", " 12", "000012.0", "\uff11\uff12"),
        ("P1", "p1", "p 1", "P1\u00a0"),
        ("M\u00fcller", "Mu\u0308ller", "M\u00dcLLER"),
        ("Strau\u00df", "STRAUSS"),
        ("0", "00", "0.0"),
    ],
)
def test_what_hands_and_spreadsheets_do_to_an_id_is_undone(spellings: tuple[str, ...]) -> None:
    assert len(set(map(unify_spelling, spellings))) == 1


def test_other_ids_stay_apart() -> None:
    identifiers = [
        "1",
        "10",
        "100",
        "P1",
        "P01",
        "P10",
        "1.2.0",
        "1.2",
        "1.20",
        "P.0",
        "P",
        "1-2",
        "12",
        "Muller",
        "M\u00fcller",
    ]
    assert len(set(map(unify_spelling, identifiers))) == len(identifiers)


@pytest.fixture
def ingest(
    tmp_path: Path, write_avi: Callable[..., Path], tissue_frames: np.ndarray
) -> Callable[[str, dict[str, str]], Path]:
    """Ingests patients by the name of their file into a cohort, of which it returns the folder."""

    def run(modality: str, patients: dict[str, str], n_files: int = 4) -> Path:
        source, out = tmp_path / modality, tmp_path / "cohort"
        source.mkdir(exist_ok=True)
        for number in range(n_files):
            volume = np.random.default_rng(number).integers(0, 999, (8, 16, 16)).astype(np.int16)
            if modality == "mri":
                nib.save(nib.Nifti1Image(volume, np.diag([4.0, 2.0, 2.0, 1.0])), source / f"v{number}.nii")
            else:
                write_avi(source / f"v{number}.avi", np.roll(tissue_frames, 20 * number, axis=1))
        suffix = "nii" if modality == "mri" else "avi"
        rows = [f"{patient},{n % 2},{file}.{suffix}" for n, (file, patient) in enumerate(patients.items())]
        (source / "labels.csv").write_text("\n".join(["patient_id,label,path", *rows]))
        if modality == "mri":
            ingest_mri(source, out, shape=(8, 16, 16), folds=3, workers=1, remove_missing=True)
        else:
            ingest_tvus(source, out, shape=(6, 16, 16), folds=3, workers=1)
        return out

    return run


def test_another_spelling_of_a_known_patient_ends_the_ingest(ingest: Callable[..., Path]) -> None:
    out = ingest("mri", {"v0": "0071", "v1": "0072", "v2": "P3", "v3": "P4"})
    before = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"labels\.csv: 3 patient ids differ only in case, .* such as 71; ") as caught:
        ingest("tvus", {"v0": "71", "v1": "72", "v2": "p3", "v3": "P4"})
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="such as p4; "):
        ingest("mri", {"v0": "0071", "v1": "0072", "v2": "P3", "v3": "p4"})
    assert {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    ingest("tvus", {"v0": "0071", "v1": "0072", "v2": "P3", "v3": "P5"})
    ingest("mri", {"v0": "0071", "v1": "0072", "v2": "P3"}, n_files=3)
    manifests = [set(read_manifest(out, modality)["patient_id"]) for modality in ("mri", "tvus")]
    assert len(manifests[0] & manifests[1]) == 3


def test_two_spellings_in_one_ingest_end_it(ingest: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"labels\.csv: 1 patient ids .* such as P1 and p1, .* correct one of the two"):
        ingest("mri", {"v0": "P1", "v1": "p1", "v2": "P2"})


def test_a_row_that_spells_a_file_s_patient_otherwise_ends_the_ingest(
    tmp_path: Path, ingest: Callable[..., Path]
) -> None:
    with pytest.raises(InputError, match="such as V3 and v3"):
        ingest("mri", {"v0": "a", "nowhere": "V3"})


def test_what_is_kept_of_the_ids_tells_none(ingest: Callable[..., Path]) -> None:
    out = ingest("mri", {"v0": "HOSP71", "v1": "HOSP72", "v2": "HOSP73", "v3": "HOSP74"})
    spellings = json.loads((out / "folds.json").read_text())["spellings"]
    assert set(spellings.values()) == set(read_manifest(out, "mri")["patient_id"])
    assert all(set(digest) <= set("0123456789abcdef") and len(digest) == 16 for digest in spellings)
