from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, UltrasoundMultiFrameImageStorage, generate_uid

SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))  # rows run to posterior, columns down to inferior (LPS)


def new_dataset(storage: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = storage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = storage, meta.MediaStorageSOPInstanceUID
    return dataset


def set_pixels(dataset: Dataset, pixels: np.ndarray, photometric: str, samples: int = 1) -> None:
    dataset.SamplesPerPixel = samples
    dataset.PhotometricInterpretation = photometric
    dataset.Rows, dataset.Columns = pixels.shape[-2 - (samples > 1) : pixels.ndim - (samples > 1)]
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    if samples > 1:
        dataset.PlanarConfiguration = 0
    dataset.PixelData = pixels.tobytes()


@pytest.fixture
def write_series() -> Callable[..., list[Path]]:
    """Writes a volume (slices, rows, columns) uint16 as an MR series with names in random order."""

    def write(
        folder: Path,
        volume: np.ndarray,
        directions: Sequence[Sequence[float]] = SAGITTAL,
        spacing: Sequence[float] = (4.0, 2.0, 2.0),
        origin: Sequence[float] = (-20.0, -30.0, 40.0),
        patient: str = "P1",
        compress: str | None = None,
        skip: Sequence[int] = (),
        **attributes: Any,
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        normal = np.cross(*directions)
        series, study = generate_uid(), attributes.pop("StudyInstanceUID", generate_uid())
        names = np.random.default_rng(0).permutation(len(volume))
        files = []
        for index, plane in enumerate(volume):
            if index in skip:
                continue
            dataset = new_dataset(MRImageStorage)
            dataset.Modality, dataset.PatientID, dataset.PatientName = "MR", patient, "Roe^Jane"
            dataset.PatientBirthDate, dataset.StudyDate = "19801231", "20210704"
            dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, study
            dataset.InstanceNumber = int(names[index]) + 1
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
            dataset.Manufacturer, dataset.EchoTime, dataset.RepetitionTime = "ACME", 100.0, 4000.0
            dataset.ImageOrientationPatient = [*map(float, directions[0]), *map(float, directions[1])]
            dataset.ImagePositionPatient = [float(v) for v in np.array(origin) + normal * spacing[0] * index]
            dataset.PixelSpacing = [spacing[1], spacing[2]]
            dataset.SliceThickness = spacing[0]
            set_pixels(dataset, plane, "MONOCHROME2")
            for keyword, value in attributes.items():
                setattr(dataset, keyword, value[index] if isinstance(value, tuple) else value)
            if compress:
                dataset.compress(compress)
            file = folder / f"IM{names[index]:04d}"
            dataset.save_as(file, enforce_file_format=True)
            files.append(file)
        return files

    return write


@pytest.fixture
def write_cine() -> Callable[..., Path]:
    """Writes frames (T, H, W) or (T, H, W, 3) uint8 as a multi-frame ultrasound object."""

    def write(
        file: Path,
        frames: np.ndarray,
        photometric: str = "MONOCHROME2",
        patient: str = "P1",
        compress: str | None = None,
        **attributes: Any,
    ) -> Path:
        dataset = new_dataset(UltrasoundMultiFrameImageStorage)
        dataset.Modality, dataset.PatientID, dataset.PatientName = "US", patient, "Roe^Jane"
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = generate_uid(), generate_uid()
        dataset.NumberOfFrames = len(frames)
        set_pixels(dataset, frames, photometric, samples=3 if frames.ndim == 4 else 1)
        dataset.FrameTime = 50.0
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        if compress:
            dataset.compress(compress)
        file.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(file, enforce_file_format=True)
        return file

    return write


@pytest.fixture
def write_avi() -> Callable[..., Path]:
    """Writes grey frames (T, H, W) uint8 as motion JPEG."""

    def write(file: Path, frames: np.ndarray, rate: float = 20.0) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), rate, frames.shape[:0:-1])
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
        writer.release()
        return file

    return write


@pytest.fixture
def noise_volume() -> np.ndarray:
    """Smooth random volume, uint16 (12, 40, 36)."""
    values = np.random.default_rng(1).random((12, 40, 36)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), 2.0) for plane in values])
    return ((smooth - smooth.min()) / np.ptp(smooth) * 2000).astype(np.uint16)


@pytest.fixture
def moving_frames() -> np.ndarray:
    """A bright disc that glides to the right, uint8 (20, 60, 80)."""
    frames = np.full((20, 60, 80), 30, np.uint8)
    for index, frame in enumerate(frames):
        cv2.circle(frame, (15 + 2 * index, 30), 8, 220, -1)
    return frames


@pytest.fixture
def bundled() -> Callable[[str], Path]:
    """Path of a real file or folder that pydicom brings along; one that is gone fails the test."""

    def find(name: str) -> Path:
        file = Path(pydicom.__file__).parent / "data" / "test_files" / name
        assert file.exists(), f"pydicom does not bring {name} along any more: name another real file"
        return file

    return find
