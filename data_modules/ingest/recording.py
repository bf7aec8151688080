"""A clip as its files hold it: what each reader gives, and what no clip can be."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_modules.ingest.dicom import MAX_FRAMES
from data_modules.ingest.images import UnusableError

MAX_FRAME = 2**25  # pixels of a frame: an 8K screen has 33 million
MAX_CLIP = 2**36  # pixels of all frames: 18 minutes of 1920 x 1080 at 30 frames a second


@dataclass(frozen=True)
class Recording:
    """A clip that can be read more than once, frame by frame, so that it need not fit into memory.

    Attributes:
        source: Format and scanner, for the record.
        frames: Gives time in ms (nan where unknown) and picture uint8 (rows, columns) of the frames whose ascending
            numbers it is told; None: of all.
        frame_time: Between two frames as it is stated, ms; 0 where unknown.
        stated: Number of frames that the file states, an estimate in some containers; 0 where unknown.
        region: Top, bottom, left, right (ends exclusive) of the ultrasound sector as the file states it.
        steps: What was done to the pictures on reading, for the record.
        warnings: What a user must know of it.
    """

    source: dict[str, Any]
    frames: Callable[[Sequence[int] | None], Iterator[tuple[float, np.ndarray]]]
    frame_time: float = 0.0
    stated: int = 0
    region: tuple[int, int, int, int] | None = None
    steps: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()


def check_size(rows: int, columns: int, frames: int = 1) -> None:
    """Raises UnusableError where a clip is larger than any ultrasound: a damaged header may state anything."""
    if rows < 1 or columns < 1 or rows * columns > MAX_FRAME:
        raise UnusableError(f"frames of {rows} x {columns} pixels: a damaged header")
    if frames > MAX_FRAMES or rows * columns * frames > MAX_CLIP:
        raise UnusableError(f"{frames} frames of {rows} x {columns} pixels are too many for a clip")
