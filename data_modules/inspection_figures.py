"""Pictures of the cohort report, as the data of PNG files in base64."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from data_modules.store import read_array

FRAMES = 6  # of a filmstrip
GAP = 2  # pixels between them
HISTOGRAM = (3.2, 2.1)  # inches
RESOLUTION = 200  # dots an inch, at 100 of which the page shows a histogram


@dataclass(frozen=True)
class Picture:
    """A PNG and the size at which to show it.

    Attributes:
        data: In base64.
        width: CSS pixels.
        height: CSS pixels.
    """

    data: str
    width: int
    height: int


def draw_middle(path: Path, spacing: Sequence[float] | None, width: int = 128) -> Picture:
    """Draws the middle plane of an array (D, H, W) or (T, H, W).

    Args:
        path: The array's file.
        spacing: Voxel size, along H and W last, for true proportions; None: square pixels.
        width: CSS pixels.
    """
    array = read_array(path)
    plane = _grey(array[len(array) // 2])
    aspect = plane.shape[0] / plane.shape[1] * (spacing[-2] / spacing[-1] if spacing else 1)
    return Picture(_png(plane), width, round(width * aspect))


def draw_filmstrip(path: Path, width: int = 576) -> Picture:
    """Draws six frames of a clip (T, H, W), evenly spaced in time, side by side."""
    array = read_array(path)
    frames = [_grey(array[index]) for index in np.linspace(0, len(array) - 1, FRAMES).round().astype(int)]
    gap = np.full((frames[0].shape[0], GAP), 255, np.uint8)
    strip = np.hstack([part for frame in frames for part in (frame, gap)][:-1])
    return Picture(_png(strip), width, round(width * strip.shape[0] / strip.shape[1]))


def draw_histogram(values: np.ndarray, unit: str) -> Picture:
    """Draws how many cases have which value."""
    figure, axes = _figure()
    axes.hist(values, bins=24, color="#475569")
    if np.ptp(values) == 0:
        axes.set_xlim(0.8 * values[0] - 0.5, 1.2 * values[0] + 0.5)
    axes.set(xlabel=unit, ylabel="cases")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return _drawn(figure)


def draw_intensities(paths: Mapping[str, Sequence[Path]], colours: Mapping[str, str]) -> Picture:
    """Draws the distribution of stored intensities, a line a class, from three planes of each case.

    Args:
        paths: Of arrays, by class.
        colours: By class.
    """
    figure, axes = _figure()
    for name, of_class in paths.items():
        if of_class:
            values = np.concatenate([sample_planes(path).ravel() for path in of_class])
            axes.hist(values, bins=64, range=(0, 1), density=True, histtype="step", color=colours[name], label=name)
    axes.set(xlabel="stored intensity", ylabel="density", xlim=(0, 1), yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False, fontsize=7)
    return _drawn(figure)


def sample_planes(path: Path) -> np.ndarray:
    """Returns three planes of an array, at a quarter, half and three quarters, float32 (3, H, W) in [0, 1]."""
    array = read_array(path)
    planes = np.stack([array[len(array) * part // 4] for part in (1, 2, 3)])
    return planes.astype(np.float32) / (255 if planes.dtype == np.uint8 else 1)


def _grey(plane: np.ndarray) -> np.ndarray:
    return plane if plane.dtype == np.uint8 else (plane.astype(np.float32).clip(0, 1) * 255).round().astype(np.uint8)


def _png(plane: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane)).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=HISTOGRAM, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


def _drawn(figure: Figure) -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=RESOLUTION, metadata={"Software": None})
    width, height = (round(100 * inches) for inches in HISTOGRAM)
    return Picture(base64.b64encode(buffer.getvalue()).decode(), width, height)
