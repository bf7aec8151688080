import gzip
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_modules.ingest import ingest_mri
from data_modules.ingest.images import Rejection, SourceImage
from data_modules.ingest.layouts.ut_endomri import find
from data_modules.store import read_record

SPACING = {"T2": (1.2, 1.2, 5.0), "T2FS": (1.5, 1.5, 6.0), "T1FS": (1.0, 1.0, 3.0), "T1": (1.0, 1.0, 3.0)}
SHAPE = {"T2": (20, 18, 6), "T2FS": (16, 14, 5), "T1FS": (24, 22, 10), "T1": (24, 22, 10)}
BOX = (slice(10, 16), slice(3, 9), slice(1, 4))  # of the uterus, in every sequence that it is drawn on
SEQUENCES = [["T2"], ["T1", "T2"], ["T1", "T1FS", "T2", "T2FS"], ["T1", "T2FS"], ["T1", "T1FS"], ["T1"]]


def affine_of(sequence: str) -> np.ndarray:
    """Near-axial, tilted by 10 degrees about the left-right axis; in the scanner's own axes."""
    tilt = np.deg2rad(10)
    turn = np.array([[-1, 0, 0], [0, -np.cos(tilt), -np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]])
    return nib.affines.from_matvec(turn * SPACING[sequence], [10, 20, -15])


@pytest.fixture
def replica(tmp_path: Path) -> Path:
    """51 + 73 cases with all sets of sequences, stray spaces in names, ``ut_re3``, ``pat``, masks of any sequence."""
    rng = np.random.default_rng(0)
    content = {}
    for sequence, shape in SHAPE.items():
        mask = np.zeros(shape, np.uint8)
        mask[BOX] = 1
        scan = nib.Nifti1Image(rng.integers(0, 900, shape).astype(np.int16), affine_of(sequence))
        content[sequence] = gzip.compress(scan.to_bytes(), 1)
        content[sequence, "mask"] = gzip.compress(nib.Nifti1Image(mask, affine_of(sequence)).to_bytes(), 1)
    root = tmp_path / "download" / "UT-EndoMRI"
    for site, n in (("D1_MHS", 51), ("D2_TCPW", 73)):
        for number in range(n):
            case = f"{site[:2]}-{number:03d}"
            folder = root / site / case
            folder.mkdir(parents=True)
            sequences = SEQUENCES[number % len(SEQUENCES)]
            stray = ("", " ")[number % 7 == 0]
            for sequence in sequences:
                (folder / f"{case}_{stray}{sequence}{stray}.nii.gz").write_bytes(content[sequence])
            drawn_on = content[sequences[-1], "mask"]
            raters = ["_r1", "_r2", "_re3" if number == 8 else "_r3"] if site == "D1_MHS" else [""]
            for organ in ("ut", "ov", "em", *(("cy", "cds") if site == "D2_TCPW" else ())):
                for rater in raters:
                    (folder / f"{case}{stray}_{organ}{rater}.nii.gz").write_bytes(drawn_on)
            if number in (3, 4, 5) and site == "D1_MHS":
                (folder / f"{case}_pat.nii.gz").write_bytes(drawn_on)
            (folder / ".DS_Store").write_bytes(b"")
    (root / "UT-EndoMRI Data Dictionary.xlsx").write_bytes(b"table")
    return tmp_path / "download"


def find_all(source: Path) -> tuple[list[SourceImage], list[Rejection]]:
    files = sorted(file.relative_to(source).as_posix() for file in source.rglob("*") if file.is_file())
    return find(source, files, map)


def test_all_cases_are_found_once_in_their_best_sequence(replica: Path) -> None:
    images, rejections = find_all(replica)
    assert [image.patient for image in images] == [f"D1-{n:03d}" for n in range(51)] + [
        f"D2-{n:03d}" for n in range(73)
    ]
    for number, image in enumerate(images):
        present = SEQUENCES[(number if number < 51 else number - 51) % len(SEQUENCES)]
        best = next(sequence for sequence in ("T2", "T2FS", "T1FS", "T1") if sequence in present)
        assert image.choice == {"sequence": best, "sequences_in_case": len(present)}
        assert Path(image.files[0]).name.replace(" ", "") == f"{image.patient}_{best}.nii.gz"
        assert len(image.masks) == (3 if number < 51 else 1)  # also with ut_re3 and spaces
    assert not any(rejection.defect for rejection in rejections)
    assert {rejection.reason for rejection in rejections} == {
        "another sequence of the case is used: T2, else T2FS, T1FS, T1"
    }
    assert len(rejections) == sum(image.choice["sequences_in_case"] - 1 for image in images)


@pytest.mark.parametrize("below", ["UT-EndoMRI", "UT-EndoMRI/D1_MHS"])
def test_the_source_may_be_any_folder_above_the_cases(replica: Path, below: str) -> None:
    assert len(find_all(replica / below)[0]) == (51 if "D1" in below else 124)


def test_spacing_is_the_sequences_and_only_masks_on_its_grid_lead_the_crop(replica: Path, tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    summary = ingest_mri(replica, out, layout="ut-endomri", shape=(8, 8, 8), spacing=(1.2, 5.0, 1.2), workers=1)
    assert (summary.cases, summary.patients) == (124, 124)
    middles = Counter[tuple[str, bool]]()
    for file in (out / "mri").glob("*.npy"):
        record = read_record(file)
        assert record is not None
        sequence = record["choice"]["sequence"]
        assert tuple(record["original"]["spacing"]) == SPACING[sequence]
        uterus = affine_of(sequence) @ [12.5, 5.5, 2.0, 1.0]
        middle = np.array(record["stored"]["affine"]) @ [3.5, 3.5, 3.5, 1.0]
        led = "warnings" not in record
        assert led == bool(np.abs(middle - uterus).max() < 3)  # half a voxel, or far off
        assert led or all("not on the volume's grid" in line for line in record["warnings"])
        middles[sequence, led] += 1
    # of six sets of sequences the third has its masks on another grid than T2's; T1 and T1FS share one
    assert middles == {("T2", True): 43, ("T2", False): 21, ("T2FS", True): 20, ("T1FS", True): 20, ("T1", True): 20}


def test_a_folder_without_a_sequence_and_files_of_no_known_name_are_rejected(tmp_path: Path) -> None:
    folder = tmp_path / "D1-007"
    folder.mkdir()
    for name in ("D1-007_ut_r1.nii.gz", "D1-007_dwi.nii.gz", "export.log"):
        (folder / name).touch()
    images, rejections = find_all(tmp_path)
    assert images == []
    assert [(rejection.source, rejection.reason, rejection.defect) for rejection in rejections] == [
        ("D1-007/D1-007_dwi.nii.gz", "neither a sequence nor a mask of the set", True),
        ("D1-007/export.log", "not part of the set", False),
        ("D1-007", "no T1, T1FS, T2 or T2FS volume in the case folder", True),
    ]
