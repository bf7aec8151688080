"""Ultrasound clips from video files and multi-frame DICOM."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, iter_pixels

from data_modules.ingest.dicom import describe_source
from data_modules.ingest.images import UnusableError

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what cannot be decoded is told by us, once
SUFFIXES = (".avi", ".mp4", ".m4v", ".mkv", ".mov", ".mpg", ".mpeg", ".wmv", ".webm")
TISSUE, TWO_DIMENSIONAL = 1, 1  # region data type and spatial format of an ultrasound region
WHOLE = 0.9  # of the frames that a container states; some only estimate their number
DEFAULT_FRAME_TIME = 50.0  # ms; only ratios of times matter for frames of equal length


def read_clip(files: Sequence[Path], shape: tuple[int, int, int]) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads a clip as T grey frames, evenly spaced in time and fitted into H x W without distortion.

    Args:
        files: One video, or one DICOM object with several frames.
        shape: (T, H, W).

    Returns:
        uint8 (T, H, W), and a record of the source and each step.

    Raises:
        UnusableError: It cannot be decoded, has a single frame, or nothing in it moves.
    """
    file = files[0]
    if file.suffix.lower() in SUFFIXES:
        frames, times, record = _read_video(file, shape[1:])
    else:
        frames, times, record = _read_cine(file, shape[1:])
    if len(frames) < 2:
        raise UnusableError(f"{len(frames)} frames, a clip needs at least 2")
    chosen = nearest_in_time(times, shape[0])
    clip = np.stack([frames[index] for index in chosen])
    if (clip == clip[0]).all():
        raise UnusableError("a still image: its frames do not differ")
    record["original"]["frames"] = len(frames)
    record["original"]["duration_s"] = round(float(times[-1] - times[0]) / 1000, 4)
    record["steps"].append({"step": "choose frames evenly in time", "frames": [int(index) for index in chosen]})
    return clip, {**record, "stored": {"shape": list(shape)}}


def nearest_in_time(times: np.ndarray, n: int) -> np.ndarray:
    """Returns the frames (n,) nearest to n moments that are spread evenly from the first to the last of times (N,)."""
    moments = np.linspace(times[0], times[-1], n)
    return np.abs(times[None] - moments[:, None]).argmin(1)


def fit(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a grey frame uint8 (h, w) scaled into (H, W), its aspect kept and the rest black."""
    height, width = size
    scale = min(height / frame.shape[0], width / frame.shape[1])
    inner = max(1, round(frame.shape[0] * scale)), max(1, round(frame.shape[1] * scale))
    if frame.shape != inner:
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        frame = cv2.resize(frame, inner[::-1], interpolation=method)
    out = np.zeros(size, np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    out[top : top + inner[0], left : left + inner[1]] = frame
    return out


def _read_video(file: Path, size: tuple[int, int]) -> tuple[list[np.ndarray], np.ndarray, dict[str, Any]]:
    capture = cv2.VideoCapture(str(file))
    try:
        if not capture.isOpened():
            raise UnusableError("cannot be opened as a video")
        rate, stated = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        frames, times, original = [], [], (0, 0)
        while True:
            whole, frame = capture.read()
            if not whole:
                break
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
            original = frame.shape[:2]
            frames.append(fit(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if frame.ndim == 3 else frame, size))
    finally:
        capture.release()
    if len(frames) < WHOLE * stated:
        raise UnusableError(f"ends early: {len(frames)} of {stated} frames can be decoded")
    stamps = np.array(times)
    if (np.diff(stamps) <= 0).any():  # a container without time stamps
        stamps = np.arange(len(frames)) * (1000 / rate if rate > 0 else DEFAULT_FRAME_TIME)
    record = {
        "source": {"format": file.suffix[1:].upper()},
        "original": {"size": list(original)},
        "steps": [
            {"step": "whole frame kept: the file names no ultrasound region"},
            {"step": "fit", "size": list(size)},
        ],
    }
    return frames, stamps, record


def _read_cine(file: Path, size: tuple[int, int]) -> tuple[list[np.ndarray], np.ndarray, dict[str, Any]]:
    dataset = pydicom.dcmread(file, force=True)
    top, bottom, left, right = region = ultrasound_region(dataset)
    frames = [fit(np.ascontiguousarray(frame[top:bottom, left:right]), size) for frame in grey_frames(dataset)]
    whole = region == (0, int(dataset.Rows), 0, int(dataset.Columns))
    crop = "whole frame kept" if whole else "crop to the ultrasound region"
    record = {
        "source": describe_source(dataset),
        "original": {"size": [int(dataset.Rows), int(dataset.Columns)]},
        "steps": [{"step": crop, "top_bottom_left_right": list(region)}, {"step": "fit", "size": list(size)}],
    }
    return frames, frame_times(dataset, len(frames)), record


def grey_frames(dataset: Dataset) -> Iterator[np.ndarray]:
    """Yields the frames of a DICOM object, uint8 (rows, columns), whatever its colours and compression.

    Colours become luma (ITU-R BT.601), as JPEG's Y; more than 8 bits are scaled down from the bits stored.

    Raises:
        UnusableError: Its pixels cannot be decoded or their photometric interpretation is unknown.
    """
    if "PixelData" not in dataset:
        raise UnusableError("it has no pixels")
    photometric = str(dataset.PhotometricInterpretation)
    if not photometric.startswith(("MONOCHROME", "RGB", "YBR", "PALETTE")):
        raise UnusableError(f"photometric interpretation {photometric} is not supported")
    highest = 2 ** int(dataset.BitsStored) - 1
    try:
        for frame in iter_pixels(dataset):  # YBR comes as RGB
            if photometric == "PALETTE COLOR":
                colours = apply_color_lut(frame, dataset)
                frame, top = colours[..., :3], float(np.iinfo(colours.dtype).max)
            else:
                top = highest
            values = frame if top == 255 else np.clip(frame.astype(np.float32) * (255 / top), 0, 255).round()
            values = values.astype(np.uint8)
            grey = cv2.cvtColor(values, cv2.COLOR_RGB2GRAY) if values.ndim == 3 else values
            yield 255 - grey if photometric == "MONOCHROME1" else grey
    except Exception as error:
        # decoders of pydicom, gdcm and pylibjpeg each fail in their own ways
        raise UnusableError("its frames cannot be decoded", error) from error


def ultrasound_region(dataset: Dataset) -> tuple[int, int, int, int]:
    """Returns top, bottom, left, right (ends exclusive) of the largest 2D tissue region, or of the whole frame."""
    best = (0, int(dataset.Rows), 0, int(dataset.Columns))
    largest = 0
    for region in dataset.get("SequenceOfUltrasoundRegions") or []:
        kind = region.get("RegionSpatialFormat"), region.get("RegionDataType")
        if kind != (TWO_DIMENSIONAL, TISSUE):
            continue
        top, bottom = max(0, int(region.RegionLocationMinY0)), min(best[1], int(region.RegionLocationMaxY1) + 1)
        left, right = max(0, int(region.RegionLocationMinX0)), min(best[3], int(region.RegionLocationMaxX1) + 1)
        if bottom - top > 1 and right - left > 1 and (area := (bottom - top) * (right - left)) > largest:
            largest, chosen = area, (top, bottom, left, right)
    return chosen if largest else best


def frame_times(dataset: Dataset, n: int) -> np.ndarray:
    """Returns the times (n,) of a cine's frames in ms, from the frame time vector, the frame time or the rate."""
    vector = dataset.get("FrameTimeVector")
    if vector is not None and not isinstance(vector, float | int) and len(vector) == n:
        times = np.cumsum(np.asarray(vector, dtype=float))
        if (np.diff(times) > 0).all():
            return times
    frame_time = float(dataset.get("FrameTime") or 0)
    rate = float(dataset.get("CineRate") or dataset.get("RecommendedDisplayFrameRate") or 0)
    return np.arange(n) * (frame_time or (1000 / rate if rate else DEFAULT_FRAME_TIME))
