"""Multi-frame DICOM ultrasound."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import apply_color_lut, iter_pixels
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    MPEGTransferSyntaxes,
)

from data_modules.ingest.confidentiality import Concealment, describe_header
from data_modules.ingest.container import open_video
from data_modules.ingest.images import UnusableError
from data_modules.ingest.recording import Recording, check_size
from data_modules.ingest.sector import ultrasound_region
from data_modules.ingest.timing import DISTRUSTED, is_credible

IN_MEMORY = 2**28  # bytes; the pixels of a larger file are read from it frame by frame
LEFT_ON_DISK = "64 KB"  # what is larger, in such a file
# Where others than gdcm can, for it prints what is wrong with a damaged file.
PLUGINS = {
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEG2000: "pylibjpeg",
    JPEG2000Lossless: "pylibjpeg",
}
COLOURS = ("MONOCHROME", "RGB", "YBR", "PALETTE")
BURNED_IN = "the DICOM header says that text is burned into the picture, and states no region to cut: look at it"


@contextmanager
def open_cine(file: Path, concealment: Concealment | None = None) -> Iterator[Recording]:
    """Opens a DICOM object; a video within lies in a temporary file until it is closed.

    Grey values are luma (ITU-R BT.601) as JPEG's Y; more than 8 bits are scaled down from the bits stored.

    Args:
        file: The DICOM file.
        concealment: Of the patient, for what is recorded of the header.

    Raises:
        UnusableError: It is no DICOM image, its header states absurd sizes, or it cannot be decoded.
    """
    dataset = _read(file)
    with _in_words("a damaged DICOM header"):
        recording = _plan(file, dataset, concealment)
    if dataset.file_meta.TransferSyntaxUID not in MPEGTransferSyntaxes:
        yield recording
        return
    with tempfile.NamedTemporaryFile(prefix="clip-") as stream:  # readable by nobody else, and gone at the end
        with _in_words("its video stream cannot be found"):
            found = get_frame(dataset.PixelData, 0, number_of_frames=1)
        stream.write(found)
        stream.flush()
        video = open_video(Path(stream.name), recording.source)
        frame_time = next(filter(is_credible, (recording.frame_time, video.frame_time)), recording.frame_time)
        yield replace(recording, frames=video.frames, frame_time=frame_time, stated=video.stated)


def frame_times(dataset: Dataset) -> tuple[np.ndarray, float]:
    """Returns the time stamps of a cine's frames in ms, (0,) where it has none, and its frame time in ms, else 0.

    The frame time is the first credible one of FrameTime, CineRate and RecommendedDisplayFrameRate, or the first.
    """
    vector = dataset.get("FrameTimeVector")
    try:
        stamps = np.cumsum(np.atleast_1d(np.asarray(vector or (), dtype=float)))
    except (TypeError, ValueError):
        stamps = np.empty(0)
    stated = _stated_times(dataset)
    return stamps, next(filter(is_credible, stated), stated[0] if stated else 0.0)


def _stated_times(dataset: Dataset) -> list[float]:
    """The times between frames in ms that the header states, the most direct first."""
    rates = (_positive(dataset, keyword) for keyword in ("CineRate", "RecommendedDisplayFrameRate"))
    return [time for time in (_positive(dataset, "FrameTime"), *(1000 / rate for rate in rates if rate)) if time]


@contextmanager
def _in_words(reason: str) -> Iterator[None]:
    """Turns what a library fails with into one reason: damaged files fail in all ways of pydicom, gdcm, pylibjpeg."""
    try:
        yield
    except (MemoryError, UnusableError):
        raise
    except Exception as error:
        raise UnusableError(reason, error) from error


def _read(file: Path) -> Dataset:
    with _in_words("unreadable DICOM header"):
        size = LEFT_ON_DISK if _is_large(file) else None
        dataset: Dataset = pydicom.dcmread(file, force=True, defer_size=size)
        if size and dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise UnusableError("a deflated file too large for the memory")
        if "PixelData" not in dataset:
            raise UnusableError("it has no pixels")
        if "TransferSyntaxUID" not in dataset.file_meta:  # of before DICOM part 10; pydicom has found it out
            implicit, little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _plan(file: Path, dataset: Dataset, concealment: Concealment | None) -> Recording:
    """The recording as the header has it; a video's frames are its stream's."""
    rows, columns, n = (_whole(dataset, keyword) for keyword in ("Rows", "Columns", "NumberOfFrames"))
    check_size(rows, columns, n)
    photometric = str(dataset.get("PhotometricInterpretation") or "unknown")
    if not photometric.startswith(COLOURS):
        raise UnusableError(f"photometric interpretation {photometric} is not supported")
    region = ultrasound_region(dataset)
    stamps, frame_time = frame_times(dataset)
    distrusted = not all(map(is_credible, _stated_times(dataset)[:1]))
    has_text = str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES" and region is None
    return Recording(
        source=describe_header(dataset, concealment),
        frames=partial(_decode, file, dataset, stamps),
        frame_time=frame_time,
        stated=n,
        region=region,
        warnings=(*([BURNED_IN] if has_text else []), *([DISTRUSTED] if distrusted else [])),
    )


def _decode(
    file: Path, dataset: Dataset, stamps: np.ndarray, chosen: Sequence[int] | None
) -> Iterator[tuple[float, np.ndarray]]:
    """Gives frames as `Recording.frames`; YBR comes from pydicom as RGB."""
    with _in_words("its frames cannot be decoded"):
        photometric, highest = str(dataset.PhotometricInterpretation), 2 ** _whole(dataset, "BitsStored") - 1
        n = _whole(dataset, "NumberOfFrames")
        syntax = dataset.file_meta.TransferSyntaxUID
        source = file if _is_large(file) else dataset
        read = partial(iter_pixels, source, transfer_syntax_uid=syntax, decoding_plugin=PLUGINS.get(syntax, ""))
        numbers = range(n) if chosen is None else chosen
        pixels: Iterator[np.ndarray] = read(indices=chosen)
        if photometric == "YBR_FULL_422" and not syntax.is_encapsulated:
            # one at a time, for pydicom 3.0 takes all frames after the first that it reads for YBR_FULL
            pixels = chain.from_iterable(read(indices=[number]) for number in numbers)
        for index, frame in zip(numbers, pixels, strict=False):
            if photometric == "PALETTE COLOR":
                colours = apply_color_lut(frame, dataset)
                frame, top = colours[..., :3], float(np.iinfo(colours.dtype).max)
            else:
                top = highest
            values = frame if top == 255 else np.clip(frame.astype(np.float32) * (255 / top), 0, 255).round()
            values = values.astype(np.uint8)
            grey = cv2.cvtColor(values, cv2.COLOR_RGB2GRAY) if values.ndim == 3 else values
            time = float(stamps[index]) if len(stamps) == n else math.nan
            yield time, 255 - grey if photometric == "MONOCHROME1" else grey


def _is_large(file: Path) -> bool:
    return file.stat().st_size > IN_MEMORY


def _whole(dataset: Dataset, keyword: str) -> int:
    value = dataset.get(keyword)
    if keyword == "NumberOfFrames" and value in (None, ""):
        return 1
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise UnusableError(f"a damaged header: {keyword} is no number", error) from error


def _positive(dataset: Dataset, keyword: str) -> float:
    try:
        value = float(dataset.get(keyword) or 0)
    except (TypeError, ValueError):
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0
