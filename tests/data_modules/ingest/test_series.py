"""Volumes from DICOM series, against SimpleITK's own series reader."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, JPEG2000Lossless, RLELossless, generate_uid
from scipy.spatial.transform import Rotation

from data_modules.ingest.dicom import Frame, read_series, scan_headers
from data_modules.ingest.discovery import find_mri, list_files
from data_modules.ingest.images import Rejection, SourceImage
from data_modules.ingest.rules import read_rules
from data_modules.ingest.series import find_volumes
from data_modules.ingest.volume import to_grid

WriteSeries = Callable[..., list[Path]]


def find(source: Path) -> tuple[list[SourceImage], list[Rejection]]:
    files, unreadable = list_files(source, source / "labels.csv")
    images, rejections, _ = find_mri(source, files, map, read_rules())
    return images, unreadable + rejections


def by_simpleitk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def affine_of(image: sitk.Image) -> np.ndarray:
    """(slice, row, column) to RAS, from SimpleITK's LPS geometry."""
    affine = np.eye(4)
    affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def check_against_simpleitk(source: Path, image: SourceImage, folder: Path) -> None:
    volume, _ = read_series(source, image.files, image.frames)
    expected = by_simpleitk(folder)
    np.testing.assert_allclose(volume, sitk.GetArrayFromImage(expected), atol=1e-3)
    np.testing.assert_allclose(np.array(image.affine), affine_of(expected), atol=1e-3)


DIRECTIONS = {
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "axial": ((1, 0, 0), (0, 1, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "oblique": tuple(Rotation.from_euler("xyz", [12, -17, 9], degrees=True).apply([[0, 1, 0], [0, 0, -1]])),
}


@pytest.mark.parametrize("plane", DIRECTIONS)
def test_pixels_and_geometry_equal_simpleitk(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray, plane: str
) -> None:
    write_series(tmp_path / "s", noise_volume, DIRECTIONS[plane], (4.5, 1.2, 1.7), RescaleSlope=2, RescaleIntercept=-7)
    (image,), rejections = find(tmp_path)
    assert not rejections
    check_against_simpleitk(tmp_path, image, tmp_path / "s")


def test_the_stored_grid_samples_the_same_points_as_simpleitk(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray
) -> None:
    write_series(tmp_path / "s", noise_volume, DIRECTIONS["oblique"], (4.4, 2.2, 2.4))
    (image,), _ = find(tmp_path)
    volume, _ = read_series(tmp_path, image.files, image.frames)
    array, record = to_grid(volume, np.array(image.affine), (12, 34, 30), (4.0, 2.0, 2.0))
    stored = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.array(record["stored"]["affine"])  # to LPS
    grid = sitk.Image(30, 34, 12, sitk.sitkFloat32)
    grid.SetSpacing((2.0, 2.0, 4.0))
    grid.SetOrigin(stored[:3, 3].tolist())
    grid.SetDirection((stored[:3, 2::-1] / [2.0, 2.0, 4.0]).ravel().tolist())
    resampled = sitk.Resample(
        sitk.Cast(by_simpleitk(tmp_path / "s"), sitk.sitkFloat32), grid, sitk.Transform(), sitk.sitkLinear
    )
    low, high = record["steps"][-1]["values"]
    expected = np.clip((sitk.GetArrayFromImage(resampled) - low) / (high - low), 0, 1)
    inside = (slice(1, -1),) * 3
    np.testing.assert_allclose(array[inside].astype(np.float32), expected[inside], atol=2e-3)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_series_give_the_same_pixels(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray, syntax: str
) -> None:
    write_series(tmp_path / "s", noise_volume, compress=syntax)
    (image,), _ = find(tmp_path)
    volume, _ = read_series(tmp_path, image.files, image.frames)
    np.testing.assert_array_equal(volume, noise_volume)


@pytest.mark.parametrize(
    "name",
    ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_bigendian", "MR_small_implicit"],
)
def test_a_scanners_file_decodes_alike_in_every_transfer_syntax(bundled: Callable[[str], Path], name: str) -> None:
    file = bundled(f"{name}.dcm")
    volume, header = read_series(file.parent, [file.name], [0])
    plain = sitk.GetArrayFromImage(sitk.ReadImage(str(bundled("MR_small.dcm"))))
    np.testing.assert_array_equal(volume, plain)
    assert header.Manufacturer == "TOSHIBA_MEC"


def test_a_scanners_series_has_simpleitks_geometry(bundled: Callable[[str], Path]) -> None:
    folder = bundled("dicomdirtests/98892001/CT5N")
    frames = [
        frame for frame in scan_headers(folder, sorted(p.name for p in folder.iterdir())) if isinstance(frame, Frame)
    ]
    images, rejections = find_volumes(replace(frame, modality="MR") for frame in frames)
    assert not rejections
    check_against_simpleitk(folder, images[0], folder)


def test_series_that_are_interleaved_in_one_folder_are_told_apart(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray
) -> None:
    for name, volume in (("a", noise_volume), ("b", noise_volume[::-1].copy())):
        for file in write_series(tmp_path / name, volume, patient=name):
            file.rename(tmp_path / f"{file.name}{name}")
    images, _ = find(tmp_path)
    assert len(images) == 2
    for image in images:
        volume, _ = read_series(tmp_path, image.files, image.frames)
        np.testing.assert_array_equal(volume, noise_volume if image.patient == "a" else noise_volume[::-1])


def test_files_without_preamble_and_copies_of_files_do_no_harm(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray
) -> None:
    files = write_series(tmp_path / "s", noise_volume)
    (tmp_path / "s" / "copy").write_bytes(files[3].read_bytes())
    files[0].write_bytes(files[0].read_bytes()[132:])
    (image,), rejections = find(tmp_path)
    assert not rejections
    volume, _ = read_series(tmp_path, image.files, image.frames)
    np.testing.assert_array_equal(volume, noise_volume)


def join_series(first: list[Path], second: list[Path]) -> None:
    """Makes two series one."""
    series = pydicom.dcmread(first[0]).SeriesInstanceUID
    for file in second:
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = series
        dataset.save_as(file)


def best_of(images: list[SourceImage]) -> SourceImage:
    return max(images, key=lambda image: (not image.objection, image.preference))


def test_two_echoes_in_one_series_become_two_volumes(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray
) -> None:
    first = write_series(tmp_path / "a", noise_volume, EchoTime=15.0)
    join_series(first, write_series(tmp_path / "b", noise_volume, EchoTime=90.0))
    images, rejections = find(tmp_path)
    assert not rejections
    assert sorted(image.choice["rule"] for image in images) == ["T2 sagittal", "sagittal"]


@pytest.mark.parametrize(("weighting", "best"), [("T2", "95"), ("T1", "15")])
def test_of_a_series_of_several_echoes_the_one_that_suits_its_name_is_used(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray, weighting: str, best: str
) -> None:
    name = {"SeriesDescription": f"{weighting} SAG dual echo", "StudyInstanceUID": "1.2.3"}
    first = write_series(tmp_path / "15", noise_volume, EchoTime=15.0, **name)
    join_series(first, write_series(tmp_path / "95", noise_volume, EchoTime=95.0, **name))
    images, _ = find(tmp_path)
    assert len(images) == 2
    assert best_of(images).files[0].split("/")[0] == best


def test_an_echo_of_too_few_slices_makes_no_volume_and_gives_none_away(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray
) -> None:
    """Of which the slices are that share a position nobody can tell."""
    whole = write_series(tmp_path / "whole", noise_volume, EchoTime=90.0)
    few = read_rules().min_slices - 1
    join_series(whole, write_series(tmp_path / "few", noise_volume[:few], EchoTime=15.0))
    images, rejections = find(tmp_path)
    assert not images
    assert [rejection.reason.split(":")[0] for rejection in rejections] == ["slices share a position"]
    least = write_series(tmp_path / "other" / "few", noise_volume[: few + 1], EchoTime=15.0, patient="P2")
    join_series(write_series(tmp_path / "other" / "whole", noise_volume, EchoTime=90.0, patient="P2"), least)
    images, _ = find(tmp_path)
    assert sorted(len(image.files) for image in images) == [few + 1, len(noise_volume)]


def test_of_series_with_as_many_slices_the_smallest_pixels_win(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray
) -> None:
    for name, spacing in (("a", (4.0, 1.5, 1.5)), ("b", (4.0, 1.0, 1.0)), ("c", (4.0, 0.9, 2.0))):
        write_series(tmp_path / name, noise_volume, spacing=spacing, StudyInstanceUID="1.2.3")
    images, _ = find(tmp_path)
    assert best_of(images).files[0].startswith("b/")  # the longer side of a pixel counts


@pytest.mark.parametrize("other", [(4.0, 1.0, 2.0), (4.0, 2.0, 1.0), (4.0, 2.05, 2.05)])
def test_planes_of_another_pixel_spacing_are_another_volume(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray, other: tuple[float, ...]
) -> None:
    first = write_series(tmp_path / "a", noise_volume)
    join_series(first, write_series(tmp_path / "b", noise_volume, spacing=other))
    images, rejections = find(tmp_path)
    assert not rejections
    assert [len({file.split("/")[0] for file in image.files}) for image in images] == [1, 1]
    for image in images:
        check_against_simpleitk(tmp_path, image, tmp_path / image.files[0].split("/")[0])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"skip": [5]}, "slices are missing or uneven: 4.00 to 8.00 mm apart"),
        ({"skip": range(3, 12)}, r"too few slices \(3\)"),
        ({"Modality": "CT"}, "modality CT, not MR"),
        ({"ImagePositionPatient": None}, "geometry is unknown"),
        ({"ImagePositionPatient": [0.0, 0.0, 0.0]}, "slices share a position"),
        ({"ImagePositionPatient": tuple([4.0 * i, 1.0 * i, 0.0] for i in range(12))}, "a sheared stack"),
    ],
)
def test_what_is_no_volume_is_rejected_with_its_reason(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray, options: dict, reason: str
) -> None:
    write_series(tmp_path / "s", noise_volume, **options)
    images, rejections = find(tmp_path)
    assert not images
    assert len(rejections) == 1
    assert re.search(reason, rejections[0].reason)


def test_an_enhanced_multi_frame_object_is_read_as_its_slices(
    tmp_path: Path, write_series: WriteSeries, noise_volume: np.ndarray
) -> None:
    """The same volume, once as single files and once as one enhanced object with its frames in another order."""
    files = sorted(write_series(tmp_path / "single", noise_volume, DIRECTIONS["oblique"]))
    planes = [pydicom.dcmread(file) for file in files]
    enhanced = planes[0].copy()
    enhanced.SOPClassUID = enhanced.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    enhanced.PatientID = "P2"
    enhanced.SeriesInstanceUID = generate_uid()
    enhanced.NumberOfFrames = len(planes)
    enhanced.PixelData = b"".join(plane.PixelData for plane in planes)
    groups = []
    for plane in planes:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = plane.ImagePositionPatient
        group.PlanePositionSequence = Sequence([position])
        groups.append(group)
    shared, orientation, measures, values = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = enhanced.ImageOrientationPatient
    measures.PixelSpacing = enhanced.PixelSpacing
    values.RescaleSlope, values.RescaleIntercept = 2.0, 5.0
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([orientation]), Sequence([measures])
    shared.PixelValueTransformationSequence = Sequence([values])
    enhanced.SharedFunctionalGroupsSequence = Sequence([shared])
    enhanced.PerFrameFunctionalGroupsSequence = Sequence(groups)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(enhanced, keyword)
    enhanced.save_as(tmp_path / "enhanced.dcm")
    images, rejections = find(tmp_path)
    assert not rejections
    by_patient = {image.patient: image for image in images}
    np.testing.assert_allclose(by_patient["P2"].affine, by_patient["P1"].affine)
    volume, _ = read_series(tmp_path, by_patient["P2"].files, by_patient["P2"].frames)
    np.testing.assert_allclose(volume, noise_volume * 2.0 + 5.0)
