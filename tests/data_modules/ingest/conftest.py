from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, UltrasoundMultiFrameImageStorage, generate_uid

from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.tvus import simulate_clip

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
def write_video() -> Callable[..., Path]:
    """Writes grey frames (T, H, W) uint8 by FFmpeg, with a codec by its four letters."""

    def write(file: Path, frames: np.ndarray, codec: str = "mp4v", rate: float = 20.0) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(
            str(file), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate, frames.shape[:0:-1], isColor=False
        )
        assert writer.isOpened(), f"OpenCV's FFmpeg does not write {codec} any more"
        for frame in frames:
            writer.write(frame)
        writer.release()
        return file

    return write


@pytest.fixture
def write_uneven_video() -> Callable[..., Path]:
    """Writes grey frames (T, H, W) uint8 at times (T,) in whole ms, as motion JPEG in Matroska."""

    def write(file: Path, frames: np.ndarray, times: Sequence[int]) -> Path:
        raw = [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1]
        codec = cv2.VideoWriter.fourcc(*"MJPG")
        writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, codec, 1000, frames.shape[:0:-1], raw)
        for frame, time in zip(frames, times, strict=True):
            writer.set(cv2.VIDEOWRITER_PROP_PTS, float(time))
            writer.set(cv2.VIDEOWRITER_PROP_KEY_FLAG, 1)
            writer.write(cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))[1].ravel())
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
def tissue_frames() -> np.ndarray:
    """Speckle that glides to the left all over the frame, uint8 (20, 60, 80)."""
    speckle = cv2.GaussianBlur(np.random.default_rng(2).random((60, 120)), (0, 0), 1.5)
    wide = ((speckle - speckle.min()) / np.ptp(speckle) * 255).astype(np.uint8)
    return np.stack([wide[:, 2 * index : 2 * index + 80] for index in range(20)])


@dataclass(frozen=True)
class Screen:
    """What an ultrasound machine's screen shows.

    Attributes:
        frames: uint8 (T, H, W).
        sector: bool (H, W), where the ultrasound picture is.
        static: uint8 (H, W), the text and scale around it.
    """

    frames: np.ndarray
    sector: np.ndarray
    static: np.ndarray


@pytest.fixture
def draw_screen() -> Callable[..., Screen]:
    """Draws a simulated sweep within a machine's screen: name, scale and grey bar, a running clock and an ECG."""

    def draw(size: tuple[int, int] = (480, 640), patient: int = 0, ecg: str = "sweep", scale: float = 0.7) -> Screen:
        height, width = size
        inner = round(scale * height), round(scale * height * 1.1)
        frames = np.zeros((32, height, width), np.uint8)
        sweep = simulate_clip(SimulationSettings(seed=1, clip_shape=(32, *inner)), patient, patient % 2)
        top, left = height // 8, (width - inner[1]) // 2
        around = np.s_[top : top + inner[0], left : left + inner[1]]
        sector, static = np.zeros(size, bool), np.zeros(size, np.uint8)
        sector[around] = sweep.max(0) > 0
        unit = height / 480
        font, thin, smooth = cv2.FONT_HERSHEY_SIMPLEX, 1, cv2.LINE_AA
        cv2.putText(static, "ROE JANE 19801231", (8, round(18 * unit)), font, 0.5 * unit, 220, thin, smooth)
        cv2.putText(static, "ID 1234567  MI 1.1", (8, round(38 * unit)), font, 0.5 * unit, 200, thin, smooth)
        for row, text in enumerate(["7.5 MHz", "Gn 60", "C 61"]):
            cv2.putText(static, text, (4, round((150 + 20 * row) * unit)), font, 0.4 * unit, 180, thin, smooth)
        for y in range(top, top + inner[0], 20):
            cv2.line(static, (left + inner[1] + 10, y), (left + inner[1] + 16, y), 220)
        static[top : height // 2, -16:-8] = np.linspace(255, 0, height // 2 - top)[:, None]
        x = np.arange(width)
        beat = np.exp(-(((x / (width / 5)) % 1 - 0.5) ** 2) / 0.001) * -0.05 * height
        for time, (frame, picture) in enumerate(zip(frames, sweep, strict=True)):
            frame[:] = static
            frame[around] = np.maximum(frame[around], picture)
            cv2.putText(frame, f"12:34:{time:02d}", (width - 90, round(18 * unit)), font, 0.5 * unit, 220, thin, smooth)
            shift = time * width // 24 if ecg == "scroll" else 0
            trace = np.stack([x, 0.94 * height + np.roll(beat, -shift)], 1).round().astype(np.int32)
            drawn = trace if ecg == "scroll" else trace[: max(2, time * width // 16 % width)]
            if ecg:
                cv2.polylines(frame, [drawn], False, 230, 1, cv2.LINE_AA)
        return Screen(frames, sector, static)

    return draw


@pytest.fixture
def bundled() -> Callable[[str], Path]:
    """Path of a real file or folder that pydicom brings along; one that is gone fails the test."""

    def find(name: str) -> Path:
        file = Path(pydicom.__file__).parent / "data" / "test_files" / name
        assert file.exists(), f"pydicom does not bring {name} along any more: name another real file"
        return file

    return find
