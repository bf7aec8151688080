"""DICOM headers, and MR volumes from the slices of a series."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import pixel_array

from data_modules.ingest.confidentiality import PERSONAL, personal_texts
from data_modules.ingest.images import Rejection, UnusableError
from data_modules.ingest.nifti import check_values
from data_modules.ingest.workers import Lost, Map

FOREIGN = "neither DICOM nor NIfTI nor video"
DIRECTORY = "1.2.840.10008.1.3.10"  # DICOMDIR, an index of the files beside it
FILES_A_TASK = 64
MAX_FRAMES = 100_000  # of a file; a damaged header may state any number
HEADER_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality", "ImageType"),
    *("SeriesDescription", "ProtocolName", "Manufacturer", "EchoTime", "RepetitionTime"),
    *("Rows", "Columns", "NumberOfFrames", "PhotometricInterpretation"),
    *("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness"),
    *PERSONAL,
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]


@dataclass(frozen=True)
class Frame:
    """A plane of a DICOM file, with what is needed to tell which volume it belongs to.

    Attributes:
        file: Path relative to the source folder.
        index: Frame in the file, from 0.
        frames: Number of frames of the file.
        instance: SOP instance UID.
        series: Series UID.
        study: Study UID.
        patient: Patient ID.
        personal: Names, numbers and dates that identify the patient, to be concealed.
        modality: E.g. ``MR``.
        image_type: E.g. ``("ORIGINAL", "PRIMARY", "M")``.
        description: Of the series, or else of its protocol.
        manufacturer: Of the scanner.
        echo_time: ms, 0 where unknown.
        repetition_time: ms, 0 where unknown.
        size: Rows and columns.
        inverted: Whether low values are bright (MONOCHROME1).
        orientation: Direction of the rows, then of the columns, LPS; empty where unknown.
        position: Of the first pixel, mm, LPS; empty where unknown.
        spacing: mm between rows, between columns; empty where unknown.
        thickness: Of the slice in mm, 0 where unknown.
    """

    file: str
    index: int
    frames: int
    instance: str
    series: str
    study: str
    patient: str
    personal: tuple[str, ...]
    modality: str
    image_type: tuple[str, ...]
    description: str
    manufacturer: str
    echo_time: float
    repetition_time: float
    size: tuple[int, int]
    inverted: bool
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float

    @property
    def normal(self) -> np.ndarray:
        """Unit vector (3,) across the plane, LPS."""
        return np.cross(self.orientation[:3], self.orientation[3:])


def scan_headers(source: Path, files: Sequence[str]) -> list[Frame | Rejection]:
    """Reads the headers of files, all planes of a file one after the other; DICOMDIR indices are passed over."""
    found: list[Frame | Rejection] = []
    for file in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom quotes headers in them
                header = _read_header(source / file)
                if header.file_meta.get("MediaStorageSOPClassUID") != DIRECTORY:
                    found += _frames(header, file)
        except UnusableError as error:
            found.append(Rejection(file, error.reason, defect=error.reason != FOREIGN))
        except Exception as error:
            # a damaged header fails in any of pydicom's ways
            found.append(Rejection(file, "unreadable DICOM header", f"{type(error).__name__}: {error}"))
    return found


def scan_files(source: Path, files: Sequence[str], over: Map) -> tuple[list[Frame], list[Rejection]]:
    """Reads the headers of files over processes; returns all planes in the files' order, and what is no DICOM."""
    scan = partial(scan_headers, source)
    tasks = [files[start : start + FILES_A_TASK] for start in range(0, len(files), FILES_A_TASK)]
    found: list[Frame | Rejection] = []
    for task, part in zip(tasks, over(scan, tasks), strict=True):
        if not isinstance(part, Lost):
            found += part
            continue
        for file, alone in zip(task, over(scan, [[file] for file in task]), strict=True):  # which one was it?
            found += [Rejection(file, alone.reason)] if isinstance(alone, Lost) else alone
    frames = [item for item in found if isinstance(item, Frame)]
    return frames, [item for item in found if isinstance(item, Rejection)]


def read_series(source: Path, files: Sequence[str], frames: Sequence[int]) -> tuple[np.ndarray, Dataset]:
    """Reads the planes of a volume, given in the order of their positions.

    Args:
        source: The source folder.
        files: The file of each plane.
        frames: The frame in its file of each plane.

    Returns:
        Volume (slices, rows, columns) float32 in rescaled values, those of MONOCHROME1 as their distance below the
        highest of them; and the last plane's data set.

    Raises:
        UnusableError: The pixels cannot be decoded or their values are no image's.
    """
    planes: list[np.ndarray] = []
    opened = ""
    for file, index in zip(files, frames, strict=True):
        if file != opened:
            dataset: Dataset = pydicom.dcmread(source / file, force=True)
            pixels = _decode(dataset)
            opened = file
        slope, intercept = _rescale(dataset, index)
        planes.append(pixels[index].astype(np.float32) * slope + intercept)
    if len({plane.shape for plane in planes}) > 1:
        raise UnusableError("its slices differ in size")
    volume = np.stack(planes)
    check_values(volume)
    if _is_inverted(dataset):
        np.subtract(volume.max(), volume, out=volume)  # air comes to 0, as N4 takes it
    return volume, dataset


def _read_header(file: Path) -> Dataset:
    try:
        header: Dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=HEADER_TAGS)
    except InvalidDicomError:
        # Old files lack the preamble. Only names that DICOM files have are tried without, for anything parses so.
        if file.suffix.lower() not in {"", ".dcm", ".dicom", ".ima"} and not file.suffix[1:].isdigit():
            raise UnusableError(FOREIGN) from None
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=HEADER_TAGS, force=True)
        if "SOPClassUID" not in header:
            raise UnusableError(FOREIGN if file.suffix.lower() != ".dcm" else "not a DICOM file") from None
    return header


def _frames(header: Dataset, file: str) -> list[Frame]:
    n = int(header.get("NumberOfFrames") or 1)
    if not 0 < n <= MAX_FRAMES:
        raise UnusableError(f"a damaged header: it states {n} frames")
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or []), Dataset())
    each = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    of_file: dict[str, Any] = {
        "file": file,
        "frames": n,
        "instance": str(header.get("SOPInstanceUID", "")),
        "series": str(header.get("SeriesInstanceUID", "")),
        "study": str(header.get("StudyInstanceUID", "")),
        "patient": str(header.get("PatientID") or "").strip(),
        "personal": personal_texts(header),
        "modality": str(header.get("Modality") or ""),
        "image_type": tuple(str(part).upper() for part in header.get("ImageType") or ()),
        "description": str(header.get("SeriesDescription") or header.get("ProtocolName") or ""),
        "manufacturer": str(header.get("Manufacturer") or ""),
        "size": (int(header.get("Rows") or 0), int(header.get("Columns") or 0)),
        "inverted": _is_inverted(header),
    }
    frames = []
    for index in range(n):
        groups = [header, *(each[index : index + 1]), shared]
        frames.append(
            Frame(
                index=index,
                echo_time=float(_value(groups, "EchoTime", "MREchoSequence", "EffectiveEchoTime") or 0),
                repetition_time=float(_value(groups, "RepetitionTime", "MRTimingAndRelatedParametersSequence") or 0),
                orientation=_floats(_value(groups, "ImageOrientationPatient", "PlaneOrientationSequence")),
                position=_floats(_value(groups, "ImagePositionPatient", "PlanePositionSequence")),
                spacing=_floats(_value(groups, "PixelSpacing", "PixelMeasuresSequence")),
                thickness=float(_value(groups, "SliceThickness", "PixelMeasuresSequence") or 0),
                **of_file,
            )
        )
    return frames


def _is_inverted(header: Dataset) -> bool:
    return str(header.get("PhotometricInterpretation") or "") == "MONOCHROME1"


def _value(groups: Sequence[Dataset], keyword: str, macro: str, keyword_in_macro: str = "") -> Any:
    """An attribute of the header, or of the frame's own or the shared functional groups of an enhanced object."""
    for item in (groups[0], *(item for group in groups[1:] for item in group.get(macro) or [])):
        name = keyword if item is groups[0] else keyword_in_macro or keyword
        if (found := item.get(name)) is not None and found != "":
            return found
    return None


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values or ()))


def _decode(dataset: Dataset) -> np.ndarray:
    """Pixels (frames, rows, columns), as stored."""
    if "PixelData" not in dataset:
        raise UnusableError("a file of the series has no pixels")
    try:
        pixels = pixel_array(dataset)
    except Exception as error:
        # decoders of pydicom, gdcm and pylibjpeg each fail in their own ways
        raise UnusableError("a slice cannot be decoded", error) from error
    if dataset.get("SamplesPerPixel", 1) != 1:
        raise UnusableError("a colour image")
    return pixels if pixels.ndim == 3 else pixels[None]


def _rescale(dataset: Dataset, index: int) -> tuple[float, float]:
    """Slope and intercept of a frame; scanners may use others for every slice."""
    sources = [dataset]
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        sequence = dataset.get(groups) or []
        group = (
            sequence[index] if groups.startswith("Per") and index < len(sequence) else next(iter(sequence), Dataset())
        )
        sources += list(group.get("PixelValueTransformationSequence") or [])
    for source in sources:
        if source.get("RescaleSlope") is not None:
            return float(source.RescaleSlope), float(source.get("RescaleIntercept") or 0)
    return 1.0, 0.0
