"""Ultrasound clips from video files, multi-frame DICOM and folders of pictures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_modules.ingest import burned_in, frames, sector
from data_modules.ingest.cine import open_cine
from data_modules.ingest.confidentiality import Concealment
from data_modules.ingest.container import open_video
from data_modules.ingest.images import UnusableError
from data_modules.ingest.recording import Recording, check_size
from data_modules.ingest.timing import DEFAULT_FRAME_TIME, DISTRUSTED, choose_frames, sound_times

SUFFIXES = (
    *(".avi", ".mp4", ".m4v", ".mkv", ".mov", ".mpg", ".mpeg", ".wmv", ".webm"),
    *(".3gp", ".3g2", ".asf", ".flv", ".m2ts", ".mts", ".ts", ".vob"),
)
WHOLE = 0.9  # of the frames or the time that a file states; containers only estimate them
SAMPLES = 64  # at least, of a clip of so many frames, for finding what moves
LOOKED_AT = 16  # frames in which text is looked for
ASSUMED = f"no frame rate is stated: {1000 / DEFAULT_FRAME_TIME:g} frames a second are assumed"


def read_clip(
    files: Sequence[Path],
    shape: tuple[int, int, int],
    frame_rate: float = 0.0,
    concealment: Concealment | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads a clip as T grey frames, cut to the ultrasound sector and fitted into H x W without distortion.

    It is read twice, first to find the sector and the times of the frames, so that it need not fit into memory.

    Args:
        files: One video, one DICOM object with several frames, or pictures in the order of time.
        shape: (T, H, W).
        frame_rate: Of the T frames, Hz, which are taken from the middle of the clip, and to and fro where it is too
            short; 0: they are spread evenly from its first to its last frame.
        concealment: Of the patient, for what is recorded of a DICOM header.

    Returns:
        uint8 (T, H, W); and a record of the source and each step, with ``warnings`` where there are any.

    Raises:
        UnusableError: It cannot be decoded, ends early, has a single frame, nothing in it moves, it is shorter than the
            time between two of the T frames, or larger than any ultrasound.
    """
    with _open(files, concealment) as recording:
        stamps, size, samples = _survey(recording)
        times, timing, distrusted = sound_times(stamps, recording.frame_time)
        _check_end(recording, times, timing)
        if sector.is_still(samples):
            raise UnusableError("a still image: its frames do not differ")
        lasts = round(float(times[-1] - times[0]), 1)  # ms; more digits are the rounding of time stamps
        if frame_rate > 0 and lasts < round(1000 / frame_rate, 1):
            raise UnusableError(f"it lasts {lasts:g} ms, less than one step at {frame_rate:g} Hz: raise --frame_rate")
        chosen, too_short = choose_frames(times, shape[0], frame_rate)
        needed = np.unique(chosen)
        if len(needed) < 2:
            raise UnusableError(f"{shape[0]} frames at {frame_rate:g} Hz all fall on one frame of it")
        kept = sector.find_sector(samples, size, recording.region)
        clip, has_text = _read_frames(recording, needed, kept, shape[1:])
    how: dict[str, Any] = {"step": "choose frames evenly in time"}
    if frame_rate > 0:
        how |= {"frame_rate": frame_rate, "mirrored_in_time": too_short}
    warnings = [
        *recording.warnings,
        *([DISTRUSTED] if distrusted and DISTRUSTED not in recording.warnings else []),
        *([] if kept.found else [sector.NOT_FOUND]),
        *([burned_in.WARNING] if has_text else []),
        *([ASSUMED] if frame_rate > 0 and timing == "assumed" else []),
    ]
    record = {
        "source": recording.source,
        "original": {
            "size": list(size),
            "frames": len(times),
            "duration_s": round(float(times[-1] - times[0]) / 1000, 4),
            "frame_times": timing,
        },
        "steps": [
            *recording.steps,
            kept.describe(),
            {"step": "fit", "size": list(shape[1:])},
            {**how, "frames": chosen.tolist()},
        ],
        "stored": {"shape": list(shape)},
    }
    return clip[np.searchsorted(needed, chosen)], record | ({"warnings": warnings} if warnings else {})


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


@contextmanager
def _open(files: Sequence[Path], concealment: Concealment | None) -> Iterator[Recording]:
    if any(file.stat().st_size == 0 for file in files):
        raise UnusableError("an empty file")
    suffix = files[0].suffix.lower()
    if len(files) > 1 or suffix in frames.SUFFIXES:
        yield frames.open_pictures(files)
    elif suffix in SUFFIXES:
        yield open_video(files[0], {"format": suffix[1:].upper()})
    else:
        with open_cine(files[0], concealment) as recording:
            yield recording


def _survey(recording: Recording) -> tuple[np.ndarray, tuple[int, int], list[np.ndarray]]:
    """Reads all frames once: their time stamps (N,), their size, and samples of them spread over the clip."""
    stamps: list[float] = []
    samples: list[np.ndarray] = []
    size, stride = (0, 0), 1
    for index, (time, frame) in enumerate(recording.frames(None)):
        rows, columns = frame.shape
        check_size(rows, columns, index + 1)
        size = size if index else (rows, columns)
        if (rows, columns) != size:
            raise UnusableError("its frames differ in size")
        stamps.append(time)
        if index % stride == 0:
            samples.append(sector.shrink(frame))
        if len(samples) == 2 * SAMPLES:
            del samples[1::2]
            stride *= 2
    if len(stamps) < 2:
        raise UnusableError("a single frame, not a clip" if stamps else "no frame of it can be decoded")
    return np.array(stamps), size, samples


def _check_end(recording: Recording, times: np.ndarray, timing: str) -> None:
    """Raises UnusableError where frames are missing at the end."""
    in_number = len(times) < WHOLE * recording.stated
    # Where frames are unevenly spaced, containers estimate their number from the length and a rate.
    in_time = timing != "time stamps" or times[-1] < WHOLE * recording.stated * recording.frame_time
    if in_number and in_time:
        raise UnusableError(f"ends early: {len(times)} of {recording.stated} frames can be decoded")


def _read_frames(
    recording: Recording, needed: np.ndarray, kept: sector.Sector, size: tuple[int, int]
) -> tuple[np.ndarray, bool]:
    """Frames (n, H, W) of these numbers, cut and fitted; and whether text stands in them."""
    clip, pictures = [], []
    stride = -(-len(needed) // LOOKED_AT)
    for index, (_, frame) in enumerate(recording.frames(needed.tolist())):
        picture = kept.cut(frame)
        clip.append(fit(picture, size))
        if index % stride == 0:
            pictures.append(picture)
    return np.stack(clip), bool(burned_in.find_steady_text(pictures))
