from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from data_modules.ingest.images import UnusableError
from data_modules.ingest.nifti import read_nifti

AFFINE = nib.affines.from_matvec(np.array([[0, 0.3, -4], [2, 0, 0.2], [0, -2, 0.1]]), [10, -20, 30])


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3000, (9, 8, 7)).astype(np.int16)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_values_and_affine_come_back(tmp_path: Path, volume: np.ndarray, kind: type, name: str) -> None:
    nib.save(kind(volume, AFFINE), tmp_path / name)
    values, affine, _ = read_nifti(tmp_path / name)
    np.testing.assert_array_equal(values, volume)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-5)


def test_geometry_equals_simpleitk(tmp_path: Path, volume: np.ndarray) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]  # SimpleITK wants orthogonal axes
    nib.save(nib.Nifti1Image(volume, nib.affines.from_matvec(turn * [1.5, 2.0, 4.0], [1, 2, 3])), tmp_path / "a.nii.gz")
    values, affine, _ = read_nifti(tmp_path / "a.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(values, sitk.GetArrayFromImage(image).T)
    for index in [(0, 0, 0), (8, 0, 3), (2, 7, 6)]:
        point = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((affine @ [*index, 1])[:3], np.array(point) * [-1, -1, 1], atol=1e-4)


def test_a_gz_that_is_not_compressed_and_a_trailing_axis_are_read(tmp_path: Path, volume: np.ndarray) -> None:
    (tmp_path / "a.nii.gz").write_bytes(nib.Nifti1Image(volume[..., None], AFFINE).to_bytes())
    values, _, _ = read_nifti(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(values, volume)


def test_units_of_metres_become_millimetres(tmp_path: Path, volume: np.ndarray) -> None:
    image = nib.Nifti1Image(volume, np.diag([0.004, 0.002, 0.002, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii")[1], np.diag([4.0, 2, 2, 1]), rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((5, 5, 5, 3), np.int16), "it holds several volumes"),
        (np.zeros((5, 5), np.int16), "not a volume"),
        (np.full((5, 5, 5), 7, np.int16), "all voxels have the same value"),
        (np.where(np.arange(125).reshape(5, 5, 5) == 3, np.nan, 1).astype(np.float32), "1 voxels are not finite"),
        (np.where(np.arange(125).reshape(5, 5, 5) == 3, np.inf, 1).astype(np.float32), "1 voxels are not finite"),
        (np.arange(125).reshape(5, 5, 5).astype(np.uint8) % 4, "only 4 distinct values: a segmentation"),
        (np.zeros((5, 5, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "a colour or complex image"),
    ],
)
def test_what_is_no_image_is_rejected_with_its_reason(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "a.nii.gz")
    with pytest.raises(UnusableError, match=reason):
        read_nifti(tmp_path / "a.nii.gz")


def test_empty_foreign_and_unoriented_files_are_rejected_with_their_reasons(tmp_path: Path, volume: np.ndarray) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(b"")
    with pytest.raises(UnusableError, match="the file is empty"):
        read_nifti(file)
    file.write_bytes(b"no volume at all" * 100)
    with pytest.raises(UnusableError, match="not a NIfTI file"):
        read_nifti(file)
    image = nib.Nifti1Image(volume, None)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, file)
    with pytest.raises(UnusableError, match="no orientation"):
        read_nifti(file)
