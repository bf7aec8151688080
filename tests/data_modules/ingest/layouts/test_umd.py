import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_modules.ingest import ingest_mri
from data_modules.ingest.images import Rejection, SourceImage
from data_modules.ingest.layouts.umd import find
from data_modules.ingest.nifti import read_nifti
from data_modules.store import read_record

N, SLICES, ROWS, COLUMNS = 300, 5, 14, 16
SPACING = (6.0, 1.1, 0.9)  # mm between slices, rows, columns
# DICOM's sagittal slices: columns run to posterior, rows to inferior, slices to the right; NIfTI counts rows upwards
ORIGIN = (-12.0, -20.0, 8.0)
AFFINE = nib.affines.from_matvec(
    np.array([[0, 0, SPACING[0]], [-SPACING[2], 0, 0], [0, SPACING[1], 0]]), (12.0, 20.0, 8.0 - 13 * SPACING[1])
)


def slices_of_phantom() -> np.ndarray:
    """uint16 (slices, rows, columns), without symmetry."""
    return np.random.default_rng(0).integers(0, 2000, (SLICES, ROWS, COLUMNS)).astype(np.uint16)


def packed(values: np.ndarray, affine: np.ndarray | None = AFFINE) -> bytes:
    image = nib.Nifti1Image(values, np.eye(4) if affine is None else affine)
    return gzip.compress(image.to_bytes(), 1)


@pytest.fixture
def replica(tmp_path: Path, write_series: Callable[..., list[Path]]) -> Path:
    """300 cases with the set's quirks: 33 masks ``_seq``, uncompressed and without geometry; one misnumbered; 33 T2
    headers of 1 x 1 x 1 mm, 3 of them beside slices without positions; macOS' doubles."""
    root = tmp_path / "download" / "UMD" / "UMD"
    slices = slices_of_phantom()
    volume = slices[:, ::-1].transpose(2, 1, 0).astype(np.int16)  # columns, rows upwards, slices
    mask = np.zeros(volume.shape, np.uint8)
    mask[3:9, 4:8, 1:4] = 3
    good, unset = packed(volume), packed(volume, None)
    for number in range(1, N + 1):
        case = f"UMD_221129_{number:03d}"
        folder = root / case
        folder.mkdir(parents=True)
        (folder / f"{case}_t2.nii.gz").write_bytes(unset if 101 <= number <= 133 else good)
        if number <= 33:
            (folder / f"{case}_seq.nii.gz").write_bytes(gzip.decompress(packed(mask, None)))
        elif number == 37:
            (folder / "UMD_2221129_037_seg.nii.gz").write_bytes(gzip.decompress(packed(mask)))
        else:
            (folder / f"{case}_seg.nii.gz").write_bytes(packed(mask))
        if 101 <= number <= 133 or number % 50 == 0:
            geometry = {"ImagePositionPatient": None, "SpacingBetweenSlices": 6.0} if number > 130 else {}
            files = write_series(folder, slices, spacing=SPACING, origin=ORIGIN, SliceThickness=5.0, **geometry)
            for index, file in enumerate(files):
                file.rename(folder / f"{case}_{index + 1:02d}.dcm")
        (folder / f"._{case}_t2.nii.gz").write_bytes(b"\0\5\26\7")
    (root.parent / "__MACOSX").mkdir()
    (root.parent / "__MACOSX" / "UMD_221129_001_t2.nii.gz").write_bytes(b"\0\5\26\7")
    (root.parent / "FIGO.xlsx").write_bytes(b"table")
    return tmp_path / "download"


def find_all(source: Path) -> tuple[list[SourceImage], list[Rejection]]:
    files = sorted(file.relative_to(source).as_posix() for file in source.rglob("*") if file.is_file())
    return find(source, files, map)


def test_all_cases_are_found_once_and_no_quirk_is_a_defect(replica: Path) -> None:
    images, rejections = find_all(replica)
    assert [image.patient for image in images] == [f"UMD_221129_{number:03d}" for number in range(1, N + 1)]
    assert rejections == []
    assert all(len(image.masks) == 1 and Path(image.masks[0]).parent.name == image.patient for image in images)
    assert Counter(image.format for image in images) == {"nifti": 270, "dicom": 30}
    assert Counter(image.choice["geometry"] for image in images) == {
        "NIfTI header": 267,
        "DICOM slices: the NIfTI header states 1 x 1 x 1 mm": 30,
        "NIfTI header, its 1 x 1 x 1 mm replaced by the DICOM slices' spacing": 3,
    }
    assert {image.zooms for image in images if image.zooms} == {(0.9, 1.1, 6.0)}


@pytest.mark.parametrize("below", ["", "UMD", "UMD/UMD"])
def test_the_source_may_be_any_folder_above_the_cases(replica: Path, below: str) -> None:
    assert len(find_all(replica / below)[0]) == N


def test_every_quirk_is_stored_as_a_volume_without_it_would_be(replica: Path, tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    summary = ingest_mri(replica, out, layout="umd", shape=(6, 12, 12), spacing=(6.0, 1.1, 0.9), workers=1)
    assert (summary.cases, summary.patients, summary.rejected) == (N, N, 0)
    stored = {}
    for file in sorted((out / "mri").glob("*.npy")):
        record = read_record(file)
        assert record is not None
        stored.setdefault(record["choice"]["geometry"], []).append((np.load(file), record))
    (plain, plain_record), *others = stored.pop("NIfTI header")
    for array, record in others:  # 33 of them by a mask without geometry
        np.testing.assert_array_equal(array, plain)
        assert record["stored"]["affine"] == plain_record["stored"]["affine"]
    remarks = Counter(tuple(record.get("warnings", ())) for _, record in [(plain, plain_record), *others])
    assert remarks == {(): 234, ("mask 1 of 1 taken voxel by voxel: its header states 1 x 1 x 1 mm",): 33}
    for array, record in stored.pop("DICOM slices: the NIfTI header states 1 x 1 x 1 mm"):
        np.testing.assert_array_equal(array, plain)  # the right way round, and around the mask
        assert record["stored"]["affine"] == plain_record["stored"]["affine"]
    (replaced,) = stored.values()
    assert [record["original"]["spacing"] for _, record in replaced] == [[0.9, 1.1, 6.0]] * 3
    assert all(record["source"]["header_spacing"] == [1, 1, 1] for _, record in replaced)


def test_a_case_that_cannot_be_measured_or_named_is_rejected_with_its_reason(
    tmp_path: Path, write_series: Callable[..., list[Path]]
) -> None:
    slices = slices_of_phantom()
    volume = slices.transpose(2, 1, 0)
    for number, given in enumerate((None, slices[:, :8], slices)):
        folder = tmp_path / f"UMD_1_{number}"
        folder.mkdir()
        (folder / f"UMD_1_{number}_t2.nii.gz").write_bytes(packed(volume, None))
        if given is not None:
            write_series(folder, given, spacing=SPACING)
    (tmp_path / "UMD_1_2" / "UMD_1_2_t2_copy.nii.gz").write_bytes(packed(volume))
    (tmp_path / "UMD_1_3").mkdir()
    (tmp_path / "UMD_1_3" / "UMD_1_3_seg.nii.gz").write_bytes(packed(volume))
    images, rejections = find_all(tmp_path)
    assert [image.patient for image in images] == ["UMD_1_2"]
    assert {rejection.source: rejection.reason for rejection in rejections} == {
        "UMD_1_0/UMD_1_0_t2.nii.gz": "voxel size unknown: its header states 1 x 1 x 1 mm, and no DICOM slices lie "
        "beside it",
        "UMD_1_1/UMD_1_1_t2.nii.gz": "voxel size unknown: its header states 1 x 1 x 1 mm, and the DICOM slices beside "
        "it make no volume of its shape",
        "UMD_1_2/UMD_1_2_t2_copy.nii.gz": "not part of the set",
        "UMD_1_3": "no T2 volume (_t2.nii.gz) in the case folder",
    }
    assert all(rejection.defect for rejection in rejections)


@pytest.mark.parametrize("axes", [(2, 1, 0), (0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_spacing_follows_the_axes_whatever_their_order(
    tmp_path: Path, write_series: Callable[..., list[Path]], axes: tuple[int, int, int]
) -> None:
    slices = slices_of_phantom()
    write_series(tmp_path / "UMD_1_1", slices, spacing=SPACING, ImageOrientationPatient=None)
    file = tmp_path / "UMD_1_1" / "a_t2.nii.gz"
    file.write_bytes(packed(slices.transpose(axes), None))
    (image,), rejections = find_all(tmp_path)
    assert rejections == []
    affine = read_nifti(file, image.zooms)[1]
    np.testing.assert_allclose(np.diag(affine)[:3], [SPACING[axis] for axis in axes])
