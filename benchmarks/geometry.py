"""Geometry and values of DICOM series: poddistill against SimpleITK and dcm2niix, and how long each takes.

    .venv/bin/python benchmarks/geometry.py [--rounds 7]

Series are simulated, besides real ones that pydicom brings along. The truth is known without any reader: a slice's
pixels as written, and where DICOM's equation (PS3.3, C.7.6.2.1.1) puts its corners. Every true slice is looked for in
what a reader makes of the folder, by its values, once the axes are turned by the affine alone (dcm2niix flips the rows,
for example); then the table shows how far its corners lie from their places, and how far its values. A reader ends with
float32 values in memory and an affine.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from geometry_readers import READERS, Reader, RefusedError, Volume
from geometry_series import Series, irregular, real, regular, simulated_pixels
from nibabel.orientations import apply_orientation, inv_ornt_aff
from timing import in_turns, machine, options, ratio, table

RIGHT_MM, RIGHT_VALUE = 0.01, 0.01  # of 3600; beyond, it is another volume


@dataclass(frozen=True)
class Finding:
    """How a reader did on a series.

    Attributes:
        mm: The greatest distance of a slice's corner from its true place; inf where a slice is nowhere.
        value: The greatest difference of a value; inf where a slice is nowhere.
        volumes: How many it made.
        warning: What it says about the geometry.
        refusal: Why it made none.
    """

    mm: float = np.inf
    value: float = np.inf
    volumes: int = 0
    warning: str = ""
    refusal: str = ""

    @property
    def right(self) -> bool:
        """Tells whether every slice is there, in its place."""
        return self.mm <= RIGHT_MM and self.value <= RIGHT_VALUE

    def __str__(self) -> str:
        if self.refusal:
            return "refuses"
        text = f"{self.mm:.4f} mm, {self.value:.4g}" if np.isfinite(self.mm) else "not found"
        text = text if self.right else f"**{text}**"
        notes = [f"{self.volumes} volumes"] * (self.volumes > 1) + ["warns"] * bool(self.warning)
        return f"{text} ({', '.join(notes)})" if notes else text


def find_slices(volume: Volume, series: Series) -> list[tuple[float, float]]:
    """Returns, for each true slice, how far its nearest like lies in a volume: the corners in mm, and the values."""
    found = []
    for pixels, corners in zip(series.volume, series.corners, strict=True):
        first, right, down, _ = corners
        rows, columns = pixels.shape
        affine = np.eye(4)  # of the slice; the other one is turned to its axes
        affine[:3, 1], affine[:3, 2] = (down - first) / (rows - 1), (right - first) / (columns - 1)
        affine[:3, 0] = np.cross(affine[:3, 1], affine[:3, 2])
        orientation = nib.io_orientation(np.linalg.inv(affine) @ volume.affine)
        values = None if np.isnan(orientation).any() else apply_orientation(volume.values, orientation)
        if values is None or values.shape[1:] != pixels.shape:
            found.append((np.inf, np.inf))
            continue
        plane = int(np.abs(values - pixels).mean(axis=(1, 2)).argmin())
        turned = volume.affine @ inv_ornt_aff(orientation, volume.values.shape)
        places = np.array([(plane, r, c, 1) for r in (0, rows - 1) for c in (0, columns - 1)]) @ turned[:3].T
        distance = np.linalg.norm(places - corners, axis=1).max()
        found.append((float(distance), float(np.abs(values[plane] - pixels).max())))
    return found


def judge(reader: Reader, series: Series) -> Finding:
    """Returns how a reader does on a series; each slice may be in any of the volumes that it makes."""
    try:
        reading = reader(series.folder)
    except RefusedError as error:
        return Finding(refusal=str(error))
    by_slice = zip(*(find_slices(volume, series) for volume in reading.volumes), strict=True)
    best = [min(candidates, key=lambda one: (one[1] > RIGHT_VALUE, one)) for candidates in by_slice]
    mm, value = (max(values) for values in zip(*best, strict=True))
    return Finding(mm, value, len(reading.volumes), reading.warning)


def seconds(reader: Reader, folder: Path) -> float:
    """Returns the time that a reader takes for a folder."""
    start = time.perf_counter()
    reader(folder)
    return time.perf_counter() - start


def round_over(reader: Reader, timed: list[Series]) -> dict[str, float]:
    """Returns the time that a reader takes for each series."""
    return {series.name: seconds(reader, series.folder) for series in timed}


def show_times(timed: list[Series], rounds: int) -> None:
    """Times the readers on series that all of them read right, and prints the table."""
    results = in_turns({name: partial(round_over, reader, timed) for name, reader in READERS.items()}, rounds)
    base = next(iter(READERS))
    lines = []
    for series in timed:
        times = {name: [result[series.name] for result in results[name]] for name in READERS}
        own = [f"{1e3 * statistics.median(values):.0f}" for values in times.values()]
        lines.append([series.name, *own, *(ratio(times[name], times[base]) for name in list(READERS)[1:])])
    sums = {name: [sum(result.values()) for result in results[name]] for name in READERS}
    totals = [f"{1e3 * statistics.median(values):.0f}" for values in sums.values()]
    lines.append(["all of them", *totals, *(ratio(sums[name], sums[base]) for name in list(READERS)[1:])])
    columns = ["series", *(f"{name}, ms" for name in READERS), *(f"{name} / {base}" for name in list(READERS)[1:])]
    print(f"\nMilliseconds a series that all readers read right, and times as a multiple of {base}'s:\n")
    print(table(columns, lines))


def conclude(all_series: list[Series], findings: Mapping[str, Mapping[str, Finding]]) -> str:
    """Returns a line on how each reader did, from the findings."""
    even = [series.name for series in all_series if series.regular]
    others = [series.name for series in all_series if not series.regular]
    parts = []
    for name, of_reader in findings.items():
        right = [of_reader[series] for series in even if of_reader[series].right]
        worst = f"{max(one.mm for one in right):.4f} mm and {max(one.value for one in right):.4g}"
        irregular_ones = [of_reader[series] for series in others]
        wrong = [one for one in irregular_ones if not one.right and not one.refusal]
        warned = sum(bool(one.warning) for one in wrong)
        parts.append(
            f"{name} reads {len(right)} of {len(even)} regular series right, to {worst}; of {len(others)} irregular "
            f"ones it refuses {sum(bool(one.refusal) for one in irregular_ones)}, reads "
            f"{sum(one.right for one in irregular_ones)} right, {warned} wrong with a warning and "
            f"{len(wrong) - warned} wrong without"
        )
    return ". ".join(parts) + "."


def main() -> None:
    """Compares the readers on all series, times them and prints tables and conclusion."""
    arguments = options(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = simulated_pixels()
        simulated_ones = [*regular(pixels, folder / "regular"), *irregular(pixels, folder / "irregular")]
        all_series = [*real(folder / "real"), *simulated_ones]
        all_series.sort(key=lambda series: not series.regular)
        findings = {
            name: {series.name: judge(reader, series) for series in all_series} for name, reader in READERS.items()
        }
        print(machine("pydicom", "simpleitk", "dcm2niix", "nibabel"))
        print("\nGreatest distance of a slice's corner from its place, greatest difference of a value; bold: wrong\n")
        lines = [
            [
                f"{'' if series.regular else 'irregular: '}{series.name}",
                *(findings[name][series.name] for name in READERS),
            ]
            for series in all_series
        ]
        print(table(("series", *READERS), lines))
        print("\nWhat is refused or warned of:\n")
        for name in READERS:
            for series in all_series:
                finding = findings[name][series.name]
                if said := finding.refusal or finding.warning:
                    print(f"- {name}, {series.name}: {said}")
        timed = [series for series in all_series if all(findings[name][series.name].right for name in READERS)]
        show_times(timed, arguments.rounds)
        print("\n" + conclude(all_series, findings))


if __name__ == "__main__":
    main()
