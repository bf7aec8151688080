"""Video files, decoded by OpenCV's FFmpeg."""

import math
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_modules.ingest.aliases import alias
from data_modules.ingest.images import UnusableError
from data_modules.ingest.recording import Recording, check_size

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what cannot be decoded is told by us, once
MAX_RATE = 1000.0  # Hz; containers without a rate of their own give their clock's instead


def open_video(file: Path, source: dict[str, Any]) -> Recording:
    """Opens a video file.

    Args:
        file: A video; FFmpeg knows its format by the content.
        source: What is known of it, for the record.

    Raises:
        UnusableError: It is no video, or states an absurd size.
    """
    capture = _capture(file)
    try:
        check_size(int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)))
        rate, stated = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    finally:
        capture.release()
    frame_time = 1000 / rate if math.isfinite(rate) and 0 < rate <= MAX_RATE else 0.0
    return Recording(source, partial(_decode, file), frame_time, max(0, int(stated)))


def _capture(file: Path) -> cv2.VideoCapture:
    log, level = cv2.utils.logging, cv2.utils.logging.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        with alias(file) as name:
            # An absolute path, for FFmpeg takes a name with a colon for a protocol.
            capture = cv2.VideoCapture(str(name.absolute()), cv2.CAP_FFMPEG)
    finally:
        log.setLogLevel(level)
    if not capture.isOpened():
        raise UnusableError("cannot be opened as a video")
    return capture


def _decode(file: Path, chosen: Sequence[int] | None) -> Iterator[tuple[float, np.ndarray]]:
    capture = _capture(file)
    wanted = None if chosen is None else set(chosen)
    index = 0
    try:
        while (wanted is None or wanted) and capture.grab():
            if wanted is None or index in wanted:
                read, frame = capture.retrieve()
                if not read:
                    return
                yield (
                    capture.get(cv2.CAP_PROP_POS_MSEC),
                    cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if frame.ndim == 3 else frame,
                )
                if wanted is not None:
                    wanted.remove(index)
            index += 1
    finally:
        capture.release()
