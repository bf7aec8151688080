"""Which cases of a cohort differ most from the rest, and in what."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_modules.duplicates import WEIGHTS, decode_descriptors
from data_modules.inspection_figures import sample_planes

AXES = {"L": "left-right", "R": "left-right", "A": "front-back", "P": "front-back", "S": "head-foot", "I": "head-foot"}
FEW = 8  # cases; among fewer none can be told to be unusual
UNUSUAL = 3.5
RARE = 0.05  # of the cases; what more have is another scanner, not an outlier
REASONS = 3  # told of a case


@dataclass(frozen=True)
class Measure:
    """Something that is measured of each case.

    Attributes:
        unit: To print.
        least: Robust standard deviation that is assumed at least, for most cases of a cohort may agree exactly; of the
            natural logarithm where ratios are compared.
        ratio: Compare ratios, not differences.
        above: Only greater values are unusual.
    """

    unit: str
    least: float
    ratio: bool = False
    above: bool = False


DIRECTIONS = ("left-right", "front-back", "head-foot")
GEOMETRY = {
    **{f"spacing {axis}": Measure("mm", 0.1, ratio=True) for axis in DIRECTIONS},
    **{f"voxels {axis}": Measure("", 0.1, ratio=True) for axis in DIRECTIONS},
    **{f"field of view {axis}": Measure("mm", 0.1, ratio=True) for axis in DIRECTIONS},
    "rows": Measure("pixels", 0.1, ratio=True),
    "columns": Measure("pixels", 0.1, ratio=True),
    "frames": Measure("", 0.2, ratio=True),
    "duration": Measure("s", 0.2, ratio=True),
}
MEASURES = {
    **GEOMETRY,
    "mean intensity": Measure("", 0.03),
    "contrast": Measure("", 0.02),
    "difference from the mean image": Measure("", 0.03, above=True),
}


@dataclass(frozen=True)
class Outlier:
    """A case that differs from the rest.

    Attributes:
        position: Its row.
        score: The greatest magnitude of its robust z-scores.
        reasons: The measures that are unusual, with value and median, the most unusual first.
    """

    position: int
    score: float
    reasons: tuple[str, ...]


def measure_cases(cohort: Path, paths: Sequence[str], records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Measures each case, from its record and three planes of its array.

    Args:
        cohort: The cohort folder.
        paths: Of the arrays, relative to the cohort.
        records: Beside them; what they lack is nan.

    Returns:
        A row a case, a column for each of `MEASURES`: original voxel size (mm), voxels and field of view (mm) along the
        patient's axes, or rows, columns, frames and duration (s) of a clip; mean and standard deviation of the stored
        intensities, which range from 0 to 1; 1 - cosine between the cosine transforms behind the descriptors of the
        case and of the mean case, without the weights that make copies of an image stand out.
    """
    rows = []
    for path, record in zip(paths, records, strict=True):
        planes = sample_planes(cohort / path)
        rows.append({**_geometry(record), "mean intensity": planes.mean(), "contrast": planes.std()})
    table = pd.DataFrame(rows, columns=list(MEASURES), dtype=float)
    described = np.array([bool(record.get("descriptor")) for record in records])
    if described.any():
        vectors = decode_descriptors([record["descriptor"] for record in records if record.get("descriptor")]) / WEIGHTS
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vectors.mean(0))
        cosines = vectors @ vectors.mean(0) / np.where(lengths > 0, lengths, 1)
        table.loc[described, "difference from the mean image"] = 1 - cosines
    return table


def _geometry(record: dict[str, Any]) -> dict[str, float]:
    original = record.get("original") or {}
    found: dict[str, float] = {}
    axes = [AXES.get(letter, letter) for letter in original.get("orientation", "")]
    for axis, spacing, n in zip(axes, original.get("spacing", ()), original.get("shape", ()), strict=False):
        found |= {f"spacing {axis}": spacing, f"voxels {axis}": n, f"field of view {axis}": spacing * n}
    if len(original.get("size", ())) == 2:
        found["rows"], found["columns"] = original["size"]
    return found | {
        name: original[key] for name, key in (("frames", "frames"), ("duration", "duration_s")) if original.get(key)
    }


def find_outliers(measures: pd.DataFrame) -> list[Outlier]:
    """Finds the cases that have a robust z-score above 3.5 (Iglewicz and Hoaglin, 1993), the most unusual first.

    The z-score is the distance from the median over 1.4826 times the median absolute distance. Values near which lie
    more than 5 % of the cases, as those of a second scanner do, are not unusual.

    Args:
        measures: As `measure_cases` returns them.

    Returns:
        None of less than 8 cases.
    """
    if len(measures) < FEW:
        return []
    scores = pd.DataFrame({name: robust_z(measures[name], measure) for name, measure in MEASURES.items()})
    medians = measures.median()
    found = []
    for position in np.flatnonzero(scores.max(axis=1) > UNUSUAL):
        row = scores.iloc[position].sort_values(ascending=False, kind="stable")
        reasons = [
            f"{name} {_show(measures[name].iloc[position], name)} (median {_show(medians[name], name)})"
            for name in map(str, row.index[row > UNUSUAL][:REASONS])
        ]
        found.append(Outlier(int(position), float(row.iloc[0]), tuple(reasons)))
    return sorted(found, key=lambda outlier: (-outlier.score, outlier.position))


def robust_z(values: pd.Series, measure: Measure) -> pd.Series:
    """Returns the magnitudes of the robust z-scores; 0 for what is missing, not rare or, if ``above``, too low."""
    compared = np.log(values.where(values > 0)) if measure.ratio else values
    distance = compared - compared.median()
    scale = max(1.4826 * float(distance.abs().median()), measure.least)
    known = np.sort(compared.dropna())
    near = np.searchsorted(known, compared + scale / 2, "right") - np.searchsorted(known, compared - scale / 2, "left")
    magnitude = (distance.clip(lower=0) if measure.above else distance.abs()) / scale
    return magnitude.where(near <= max(1, RARE * len(known))).fillna(0.0)


def _show(value: float, name: str) -> str:
    digits = f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    return f"{digits} {MEASURES[name].unit}".strip()
