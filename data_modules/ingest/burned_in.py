"""Looks for text that is burned into a picture."""

from collections.abc import Sequence

import cv2
import numpy as np

HEIGHTS = (8, 12, 18, 27, 40, 60)  # px of capital letters, each looked for from half to 1.3 of it
SMALL = 16  # px; smaller letters are enlarged, or their strokes run into one
LETTERS = 3
CONTRAST = 30  # grey levels of a stroke above its surroundings
NEXT = 1.5  # heights between two letters of a row, a blank with it
# Letters of a row stand on one line, are of one height, and are equally bright; speckle is none of that.
LINE, HEIGHT, BRIGHTNESS = 0.15, 1.8, 0.12
AGREE = 0.6  # of a row; the others are g and y, commas, or specks of tissue
STROKE = 0.6  # of the brightest pixel of a row: its strokes
# By which strokes change, of their brightness: text in lossy video by less; tissue in whose darkest moments a row of
# letters was seen, by more.
STEADY = 0.35
WARNING = "text may be burned into the picture: look at it"


def find_steady_text(pictures: Sequence[np.ndarray]) -> list[tuple[int, int, int, int]]:
    """Finds rows of letters that stand still while the tissue moves.

    Args:
        pictures: Frames uint8 (H, W), spread over the clip; an eighth of them may be black, or covered.

    Returns:
        As `find_text`.
    """
    stack = np.stack(pictures)
    low, high = len(stack) // 8, len(stack) - 1 - len(stack) // 8
    ordered = np.partition(stack, (low, high), axis=0)
    boxes = []
    for top, bottom, left, right in find_text(ordered[low]):
        darkest, brightest = ordered[(low, high), top:bottom, left:right]
        strokes = darkest >= STROKE * darkest.max()
        if np.median((brightest - darkest)[strokes]) <= STEADY * np.median(darkest[strokes]):
            boxes.append((top, bottom, left, right))
    return boxes


def find_text(image: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Finds rows of small bright marks as letters are.

    A heuristic that asks a person to look: it misses text that is faint, dark on bright, or of one or two letters, and
    now and then finds a row of specks.

    Args:
        image: uint8 (H, W).

    Returns:
        Top, bottom, left, right (ends exclusive) of each row, which may be found at two sizes.
    """
    boxes: list[tuple[int, int, int, int]] = []
    for height in HEIGHTS:
        if height > image.shape[0]:
            break
        scale = 2 if height < SMALL else 1
        enlarged = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else image
        for x, y, w, h in _rows(_marks(enlarged, height * scale), enlarged.shape, height * scale):
            boxes.append((y // scale, -(-(y + h) // scale), x // scale, -(-(x + w) // scale)))
    return boxes


def _marks(image: np.ndarray, height: int) -> np.ndarray:
    """Bright marks as large as letters, int (n, 5): x, y, width, height, and their greatest brightness."""
    stroke = max(3, height // 2 | 1)  # wider than any stroke, so that the opening takes the letters away
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (stroke, stroke))
    above = cv2.morphologyEx(image, cv2.MORPH_TOPHAT, kernel)
    brightest = cv2.dilate(above, np.ones((height | 1, height | 1), np.uint8))
    strokes = (above > CONTRAST) & (above > brightest // 2)  # at half its brightness a stroke ends
    _, _, statistics, _ = cv2.connectedComponentsWithStats(strokes.astype(np.uint8))
    w, h, area = statistics[:, 2:].T
    fits = (h >= 0.45 * height) & (h <= 1.3 * height) & (w <= 2.5 * h) & (area >= 0.12 * w * h) & (area <= 0.95 * w * h)
    fits[0] = False  # the background
    peaks = [int(image[y : y + h, x : x + w].max()) for x, y, w, h in statistics[fits, :4]]
    return np.column_stack([statistics[fits, :4], np.array(peaks, dtype=int)])


def _rows(marks: np.ndarray, shape: tuple[int, ...], height: int) -> list[tuple[int, int, int, int]]:
    """X, y, width, height of each row of marks that are alike."""
    filled = np.zeros(shape, np.uint8)
    for x, y, w, h, _ in marks:
        filled[y : y + h, x : x + w] = 1
    joined = cv2.morphologyEx(filled, cv2.MORPH_CLOSE, np.ones((1, int(NEXT * height) | 1), np.uint8))
    _, numbers = cv2.connectedComponents(joined)
    row_of = numbers[marks[:, 1], marks[:, 0]]
    rows = []
    for number in np.flatnonzero(np.bincount(row_of, minlength=1) >= LETTERS):
        row = marks[row_of == number]
        base, h, peak = row[:, 1] + row[:, 3], row[:, 3], row[:, 4]
        alike = np.abs(base - np.median(base)) <= LINE * np.median(h)
        alike &= (h < HEIGHT * np.median(h)) & (HEIGHT * h > np.median(h))
        alike &= np.abs(peak - np.median(peak)) <= BRIGHTNESS * np.median(peak)
        if alike.sum() >= LETTERS and alike.mean() >= AGREE:
            (left, top), (right, bottom) = row[alike, :2].min(0), (row[alike, :2] + row[alike, 2:4]).max(0)
            rows.append((int(left), int(top), int(right - left), int(bottom - top)))
    return rows
