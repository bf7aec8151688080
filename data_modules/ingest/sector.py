"""Where in the frames the ultrasound picture is: all else, names and clock and ECG, is cut off."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from pydicom import Dataset

TISSUE, TWO_DIMENSIONAL = 1, 1  # region data type and spatial format of an ultrasound region
GRID = 160  # cells along the longer side, over which grey values are averaged: less noise, and speckle is left
MOVING = 75  # percentile over time: a cell moves that changes in a quarter of the steps; a clock or ECG rests longer
PAUSE = 0.2  # of the changes in a lively step; less, and the probe is held or the machine frozen
# Grey levels by which a moving cell changes. The noise is the tenth percentile of the frame: screens have margins.
# Static text in MJPEG, MPEG-2 and MPEG-4 changes by .4, deep dark tissue by .75 to 2, all other tissue by 3 and more.
FAINT, ABOVE_NOISE, STRONG = 0.75, 2.5, 3.0
STILL = 5.0  # grey levels: what a lossy still changes by at its worst, where a clip changes by 25 and more
BRIDGE = 3  # cells; nearer parts are one, and what is narrower than twice that is no sector
LEAST, MOST = 0.05, 0.98  # of the frame; the opening leaves .006 of an ECG or a clock, sectors fill up to .95
COMPACT = 0.5  # of its hull; sectors fill .9 and more
CORNERS = np.array([(0, 0), (1, 0), (0, 1), (1, 1)])  # of a cell
NOT_FOUND = "the ultrasound sector was not found: the whole frame is kept, with whatever is burned in"


@dataclass(frozen=True)
class Sector:
    """The part of the frames that is kept.

    Attributes:
        method: ``"DICOM region"``, ``"motion"`` or ``"whole frame"``.
        box: Top, bottom, left, right, ends exclusive.
        share: Of the frame that is kept.
        mask: uint8 (rows, columns) of the box, 0 where it is blanked; None: nothing in it is.
        found: False where there is a sector that was not found.
    """

    method: str
    box: tuple[int, int, int, int]
    share: float
    mask: np.ndarray | None = None
    found: bool = True

    def cut(self, frame: np.ndarray) -> np.ndarray:
        """Returns the box of a frame uint8 (h, w), black outside the sector."""
        top, bottom, left, right = self.box
        picture = np.ascontiguousarray(frame[top:bottom, left:right])
        return picture if self.mask is None else cv2.bitwise_and(picture, picture, mask=self.mask)

    def describe(self) -> dict[str, Any]:
        """Returns the step for the record."""
        share = round(self.share, 4)
        return {
            "step": "keep the ultrasound sector",
            "method": self.method,
            "top_bottom_left_right": list(self.box),
            "share_of_frame": share,
        }


def ultrasound_region(dataset: Dataset) -> tuple[int, int, int, int] | None:
    """Returns top, bottom, left, right (ends exclusive) of the largest 2D tissue region that a header states.

    None where there is none, or where it reaches beyond the frame: then the frames were scaled or cut after it had been
    written, and it is somewhere else.
    """
    best, largest = None, 0
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    for region in dataset.get("SequenceOfUltrasoundRegions") or []:
        kind = region.get("RegionSpatialFormat"), region.get("RegionDataType")
        corners = [region.get(f"RegionLocation{corner}") for corner in ("MinY0", "MaxY1", "MinX0", "MaxX1")]
        if kind != (TWO_DIMENSIONAL, TISSUE) or not all(isinstance(corner, int) for corner in corners):
            continue
        top, bottom, left, right = corners
        # Some scanners state the end exclusive.
        fits = 0 <= top < bottom - 1 and 0 <= left < right - 1 and bottom <= rows and right <= columns
        if fits and (area := (bottom - top) * (right - left)) > largest:
            largest, best = area, (top, min(bottom + 1, rows), left, min(right + 1, columns))
    return best


def shrink(frame: np.ndarray) -> np.ndarray:
    """Returns a frame uint8 (h, w) as float32 cells, at most ``GRID`` along the longer side."""
    scale = min(1.0, GRID / max(frame.shape))
    size = max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale))
    return cv2.resize(frame.astype(np.float32), size, interpolation=cv2.INTER_AREA)


def is_still(samples: Sequence[np.ndarray]) -> bool:
    """Tells whether samples of a clip (see `shrink`) differ by no more than lossy video lets a still image differ."""
    return float(_changes(samples).max()) <= STILL


def find_sector(
    samples: Sequence[np.ndarray], size: tuple[int, int], region: tuple[int, int, int, int] | None = None
) -> Sector:
    """Finds the sector of a clip: the region that is stated, else the convex hull of what moves.

    Args:
        samples: At least two frames (see `shrink`), evenly spread over the clip.
        size: Rows and columns of a frame.
        region: As `ultrasound_region` gives it; one that is all of the frame tells nothing.
    """
    rows, columns = size
    if region is not None:
        top, bottom, left, right = region
        share = (bottom - top) * (right - left) / (rows * columns)
        if share < MOST and bottom <= rows and right <= columns:
            return Sector("DICOM region", region, share)
    hull = _hull(_moving(samples))
    whole = (0, rows, 0, columns)
    if hull is None:
        return Sector("whole frame", whole, 1.0, found=False)
    scale = np.array([columns, rows]) / samples[0].shape[::-1]
    corners = (hull[:, None] + CORNERS).reshape(-1, 2) * scale
    outline = cv2.convexHull(corners.round().astype(np.int32))
    mask = cv2.fillConvexPoly(np.zeros(size, np.uint8), outline, 255)
    share = cv2.countNonZero(mask) / mask.size
    if share > MOST:
        return Sector("whole frame", whole, 1.0)
    left, top, width, height = cv2.boundingRect(mask)
    box = (top, top + height, left, left + width)
    return Sector("motion", box, share, np.ascontiguousarray(mask[box[0] : box[1], box[2] : box[3]]))


def _changes(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Absolute differences (n - 1, h, w) between neighbours."""
    return np.abs(np.diff(np.stack(samples), axis=0))


def _moving(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Mask uint8 (h, w) of the cells that move throughout the clip."""
    changes = _changes(samples)
    step = changes.mean((1, 2))
    lively = changes[step >= PAUSE * np.percentile(step, 90)]
    change = np.percentile(lively, MOVING, axis=0, method="higher")
    noise = float(np.percentile(change, 10))
    return (change > np.clip(ABOVE_NOISE * noise, FAINT, STRONG)).astype(np.uint8)


def _hull(moving: np.ndarray) -> np.ndarray | None:
    """Convex hull (n, 2) of the largest compact part, as x and y of its cells; None where that is no sector."""
    parts = np.pad(moving, 2 * BRIDGE, mode="edge")  # a sector may run out of the frame
    for operation, radius in ((cv2.MORPH_OPEN, 1), (cv2.MORPH_CLOSE, BRIDGE), (cv2.MORPH_OPEN, BRIDGE)):
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        parts = cv2.morphologyEx(parts, operation, disc)
    parts = parts[2 * BRIDGE : -2 * BRIDGE, 2 * BRIDGE : -2 * BRIDGE]
    n, numbers, statistics, _ = cv2.connectedComponentsWithStats(parts)
    if n == 1:
        return None
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    hull = cv2.convexHull(np.argwhere(numbers == largest)[:, ::-1].astype(np.int32))
    area = cv2.countNonZero(cv2.fillConvexPoly(np.zeros_like(parts), hull, 1))
    compact = statistics[largest, cv2.CC_STAT_AREA] >= COMPACT * area
    return hull[:, 0] if compact and area >= LEAST * parts.size else None
