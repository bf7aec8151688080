"""Contact sheets of simulated volumes and clips, to judge the simulator by eye.

Example:
    python benchmarks/simulator_sheets.py --out sheets
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from data_modules.simulate.anatomy import patient_anatomy
from data_modules.simulate.mri import simulate_volume
from data_modules.simulate.settings import VOLUME_EXTENT_MM, SimulationSettings
from data_modules.simulate.tvus import simulate_clip

KINDS = {"free": 0, "free, close rectum": 0, "obliterated": 1}


def find_patients(settings: SimulationSettings, kind: str, count: int) -> list[int]:
    """First patients of a kind of `KINDS`."""
    found: list[int] = []
    patient = 0
    while len(found) < count:
        close = patient_anatomy(settings, patient, 0).nuisance.close_u < settings.close_free
        if kind == "obliterated" or close == (kind == "free, close rectum"):
            found.append(patient)
        patient += 1
    return found


def show(axes: Axes, image: NDArray[np.generic], title: str, limit: float, aspect: float = 1.0) -> None:
    """Draw one tile."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=limit, aspect=aspect, interpolation="nearest")
    axes.set_title(title, fontsize=7)
    axes.axis("off")


def volume_sheet(settings: SimulationSettings, path: Path, columns: int = 8) -> None:
    """Mid-sagittal slices: a row a kind of patient, a cross at the POD."""
    figure, axes = plt.subplots(len(KINDS), columns, figsize=(1.9 * columns, 2.05 * len(KINDS)))
    for row, (kind, label) in zip(axes, KINDS.items(), strict=True):
        for tile, patient in zip(row, find_patients(settings, kind, columns), strict=True):
            anatomy = patient_anatomy(settings, patient, label)
            volume = simulate_volume(settings, patient, label)
            z, size = anatomy.uterus.z[0], settings.voxel_mm
            middle = round(float(z) / size[0] + (volume.shape[0] - 1) / 2)
            show(tile, volume[middle], f"{kind} {patient}: gap {anatomy.gap:.1f} mm", 1)
            y, x = (anatomy.site[::-1] + np.array(VOLUME_EXTENT_MM[1:]) / 2) / size[1:] - 0.5
            tile.plot(x, y, "+", color="yellow", markersize=4, alpha=0.6)
    _save(figure, path)


def slices_sheet(settings: SimulationSettings, path: Path, patient: int = 3) -> None:
    """Every slice of one patient: free above, obliterated below."""
    depth = settings.volume_shape[0]
    shown = np.linspace(0, depth - 1, min(depth, 16)).round().astype(int)
    figure, axes = plt.subplots(4, len(shown) // 2, figsize=(0.95 * len(shown), 8.2))
    for half, label in zip((axes[:2], axes[2:]), (0, 1), strict=True):
        volume = simulate_volume(settings, patient, label)
        for tile, index in zip(half.flat, shown, strict=True):
            show(tile, volume[index], f"label {label}, slice {index}", 1)
    _save(figure, path)


def clip_sheet(settings: SimulationSettings, path: Path, patients: int = 3) -> None:
    """Film strips, free and obliterated, and beside each how far every pixel changes over time."""
    frames = np.linspace(0, settings.clip_shape[0] - 1, 8).round().astype(int)
    figure, axes = plt.subplots(2 * patients, 9, figsize=(17, 4 * patients))
    for row, (patient, label) in zip(axes, [(p, y) for p in range(patients) for y in (0, 1)], strict=True):
        clip = simulate_clip(settings, patient, label)
        for tile, index in zip(row, frames, strict=False):
            show(tile, clip[index], f"patient {patient}, label {label}, frame {index}", 255)
        show(row[-1], np.abs(np.diff(clip.astype(float), axis=0)).mean(axis=0), "mean change", 60)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(path)


def main() -> None:
    """Write the sheets at demo scale, or at another with ``--fine``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the PNG files")
    parser.add_argument("--seed", type=int, default=0, help="cohort seed (default: 0)")
    parser.add_argument("--fine", action="store_true", help="simulate at the size of the paper profile")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = SimulationSettings(seed=arguments.seed)
    if arguments.fine:
        settings = SimulationSettings(seed=arguments.seed, volume_shape=(96, 160, 160), clip_shape=(32, 112, 112))
    volume_sheet(settings, arguments.out / "volumes.png")
    slices_sheet(settings, arguments.out / "slices.png")
    clip_sheet(settings, arguments.out / "clips.png")


if __name__ == "__main__":
    main()
