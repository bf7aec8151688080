"""Written volumes, read back by SimpleITK and nibabel, which know nothing of how they were written."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from data_modules.simulate import hospital_mri
from data_modules.simulate.hospital_mri import draw_rotation, write_mr_series, write_nifti
from data_modules.simulate.identity import Identity

VOXEL_MM = (4.0, 2.0, 1.5)
IDENTITY = Identity("H1234567", "LINDT^ADA", "19850228", "20210611", 36)
TOLERANCE = 0.5 / (0.9 * hospital_mri.STORED_MAXIMUM) + 1e-6


@pytest.fixture
def volume():
    return np.random.default_rng(0).uniform(0, 1, (6, 32, 40)).astype(np.float32)


def _read_series(folder):
    """(D, H, W) in the order left, inferior, posterior, and the voxel size."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = sitk.DICOMOrient(reader.Execute(), "LIP")  # its first axis is the array's last
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), image.GetSpacing()


@pytest.mark.parametrize("seed", range(12))
def test_a_dicom_series_gives_the_volume_back(volume, tmp_path, seed):
    rng = np.random.default_rng(seed)
    folder = write_mr_series(volume, VOXEL_MM, tmp_path, IDENTITY, 0, seed, site=seed, rng=rng)
    read, spacing = _read_series(folder)
    files = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    slope = files[0].RescaleSlope
    assert np.abs(read / slope / (0.9 * hospital_mri.STORED_MAXIMUM) - volume).max() < TOLERANCE
    assert spacing == pytest.approx(VOXEL_MM)
    assert {file.PatientID for file in files} == {IDENTITY.patient_id}
    assert {str(file.PatientName) for file in files} == {IDENTITY.name}
    assert len({file.SOPInstanceUID for file in files}) == len(volume)
    assert len({file.SeriesInstanceUID for file in files}) == 1
    assert files[0].BitsStored == 12


def test_series_differ_in_compression_obliquity_and_file_order(volume, tmp_path):
    syntaxes, oblique, in_order = set(), [], []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        folder = write_mr_series(volume, VOXEL_MM, tmp_path / str(seed), IDENTITY, 0, seed, 0, rng)
        files = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
        syntaxes.add(files[0].file_meta.TransferSyntaxUID.name)
        oblique.append(np.abs(np.subtract(files[0].ImageOrientationPatient, [0, 1, 0, 0, 0, -1])).max() > 1e-3)
        numbers = [file.InstanceNumber for file in files]
        in_order.append(numbers == sorted(numbers))
    assert len(syntaxes) == 3
    assert 0 < np.mean(oblique) < 1
    assert not all(in_order)


@pytest.mark.parametrize("seed", range(12))
def test_nifti_gives_the_volume_back_whatever_its_axis_order(volume, tmp_path, seed):
    path = write_nifti(volume, VOXEL_MM, tmp_path, IDENTITY, np.random.default_rng(seed))
    image = nib.as_closest_canonical(nib.load(path))  # right, anterior, superior
    read = np.asarray(image.dataobj).transpose(0, 2, 1)[::-1, ::-1, ::-1]
    assert np.abs(read / (0.9 * hospital_mri.STORED_MAXIMUM) - volume).max() < TOLERANCE
    assert nib.affines.voxel_sizes(image.affine) == pytest.approx([4.0, 1.5, 2.0], abs=1e-4)


def test_nifti_files_come_in_many_orders(volume, tmp_path):
    codes = set()
    for seed in range(20):
        path = write_nifti(volume, VOXEL_MM, tmp_path, IDENTITY, np.random.default_rng(seed))
        codes.add(nib.aff2axcodes(nib.load(path).affine))
    assert len(codes) > 8


def test_a_rotation_is_proper_and_small():
    for seed in range(20):
        rotation = draw_rotation(np.random.default_rng(seed))
        assert np.allclose(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) == pytest.approx(1)
        assert np.degrees(np.arccos((np.trace(rotation) - 1) / 2 - 1e-12)) < 7
