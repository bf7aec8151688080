"""How similar the descriptors of copies are, and those of different patients: what the threshold stands between.

    .venv/bin/python benchmarks/near_duplicates.py [--volumes 2000 --clips 1000 --copies 100]

Simulated patients share one parametric anatomy, which makes them hard to tell apart. Copies go among 400 volumes or 200
clips, one kind at a time; an odd site replaces 3, 10, 30 or 100 of 200 patients by as many others with images of a kind
of their own, which the cohort's mean does not take off.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
from scipy import ndimage

from data_modules.duplicates import THRESHOLD, describe_content, find_duplicates, remove_common
from data_modules.ingest.volume import to_grid
from data_modules.simulate.mri import simulate_volume
from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.tvus import simulate_clip

SPACING = (4.0, 2.0, 2.0)
ODD = (3, 10, 30, 100)
SITE = 200
Change = Callable[[np.ndarray], np.ndarray]


def stored(volume: np.ndarray) -> np.ndarray:
    """Scaled as ingest does."""
    low, high = np.percentile(volume, (1, 99))
    return np.clip((volume.astype(np.float32) - low) / (high - low), 0, 1).astype(np.float16)


def noisy(volume: np.ndarray) -> np.ndarray:
    """With normal noise of 5 % of the range."""
    return stored(volume + np.random.default_rng(volume.size).normal(0, 0.05, volume.shape))


def biased(amplitude: float) -> Change:
    """Through a smooth field of gains."""

    def change(volume: np.ndarray) -> np.ndarray:
        z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in volume.shape), indexing="ij")
        field = 0.4 * z + 0.8 * y - 0.3 * x + 0.3 * (x * x - 1 / 3)
        return stored(volume * (1 + amplitude * field / np.abs(field).max()))

    return change


def through(spacing: tuple[float, float, float]) -> Change:
    """Resampled to another spacing, and from there by ingest."""

    def change(volume: np.ndarray) -> np.ndarray:
        factors = np.divide(SPACING, spacing)
        other = ndimage.zoom(volume.astype(np.float32), factors, order=1, grid_mode=True, mode="nearest")
        affine = np.zeros((4, 4))
        affine[(0, 2, 1, 3), (0, 1, 2, 3)] = (*(-length for length in spacing), 1)
        return to_grid(other, affine, volume.shape, SPACING)[0]  # type: ignore[arg-type]

    return change


def shifted(*axes: int) -> Change:
    """By one voxel, the edge repeated."""

    def change(array: np.ndarray) -> np.ndarray:
        for axis in axes:
            array = np.take(array, np.maximum(np.arange(array.shape[axis]) - 1, 0), axis)
        return array

    return change


def zoomed_out(share: float) -> Change:
    """A wider field of view on the same grid: what lies outside is black."""

    def change(volume: np.ndarray) -> np.ndarray:
        small = ndimage.zoom(volume.astype(np.float32), (1, share, share), order=1)
        missing = np.subtract(volume.shape, small.shape)
        return np.pad(small, [(n // 2, n - n // 2) for n in missing])

    return change


def coded(quality: int, gain: float = 1.0, offset: float = 0.0) -> Change:
    """As motion JPEG, after a change of brightness."""

    def change(clip: np.ndarray) -> np.ndarray:
        frames = np.clip(clip * gain + offset, 0, 255).astype(np.uint8)
        jpeg = [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for frame in frames]
        return np.stack([cv2.imdecode(frame, cv2.IMREAD_GRAYSCALE) for frame in jpeg])

    return change


def later(clip: np.ndarray) -> np.ndarray:
    """Without the first two frames."""
    return clip[np.linspace(2, len(clip) - 1, len(clip)).round().astype(int)]


def cropped(clip: np.ndarray) -> np.ndarray:
    """Without two pixels at each edge, scaled up again."""
    return np.stack([cv2.resize(frame[2:-2, 2:-2], frame.shape[::-1]) for frame in clip])


def letterboxed(clip: np.ndarray) -> np.ndarray:
    """Flattened between black bars."""
    bar = clip.shape[1] // 5
    inner = [cv2.resize(frame, (frame.shape[1], frame.shape[0] - 2 * bar)) for frame in clip]
    return np.pad(np.stack(inner), ((0, 0), (bar, bar), (0, 0)))


def barred(clip: np.ndarray) -> np.ndarray:
    """With bright bars at the edges."""
    clip = clip.copy()
    clip[:, :, :3], clip[:, -4:], clip[:, :6, 40:] = 230, 255, 200
    return clip


COPIES: dict[str, Mapping[str, Change]] = {
    "volumes": {
        "noise of 5 %": noisy,
        "gamma 0.8": lambda volume: (volume.astype(np.float32) ** 0.8).astype(np.float16),
        "bias field of +-15 %": biased(0.15),
        "bias field of +-30 %": biased(0.3),
        "spacing 3 x 1.5 x 1.5 mm": through((3.0, 1.5, 1.5)),
        "spacing 5 x 1 x 1 mm": through((5.0, 1.0, 1.0)),
        "shift by a voxel along D": shifted(0),
        "shift by a voxel along H": shifted(1),
        "shift by a voxel along W": shifted(2),
        "shift along W, bias field of +-15 %, noise": lambda volume: noisy(biased(0.15)(shifted(2)(volume))),
        "shift along H and W": shifted(1, 2),
    },
    "clips": {
        "motion JPEG, quality 50": coded(50),
        "motion JPEG, quality 20": coded(20),
        "motion JPEG, 30 grey levels brighter": coded(80, 1.0, 30.0),
        "motion JPEG, gain 1.3": coded(80, 1.3),
        "motion JPEG, gain 0.6": coded(80, 0.6),
        "without the first two frames": later,
        "shift by a pixel along H": shifted(1),
        "shift by a pixel along W": shifted(2),
        "cropped by 2 pixels": cropped,
    },
}
SITES: dict[str, Mapping[str, Change]] = {
    "volumes": {
        "field of view x 1.7": zoomed_out(0.6),
        "field of view x 1.25": zoomed_out(0.8),
        "inverted": lambda volume: (1 - volume.astype(np.float32)).astype(np.float16),
    },
    "clips": {"letterbox": letterboxed, "scale bars": barred, "inverted": lambda clip: 255 - clip},
}


def most_similar(descriptors: Sequence[str], among: slice = slice(None)) -> float:
    """The similarity of the two most similar of some of the cases."""
    vectors = remove_common(descriptors)[among]
    similarities = vectors @ vectors.T
    return float(similarities[~np.eye(len(vectors), dtype=bool)].max())


def main() -> None:
    """Prints a table for each modality."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", type=int, default=2000, help="patients (default: 2000)")
    parser.add_argument("--clips", type=int, default=1000, help="patients (default: 1000)")
    parser.add_argument("--copies", type=int, default=100, help="of a kind (default: 100)")
    arguments = parser.parse_args()
    if min(arguments.volumes, arguments.clips) < SITE:
        parser.error(f"--volumes, --clips: an odd site is looked for among {SITE} of each, give at least as many")
    settings = SimulationSettings(seed=7)
    simulate: dict[str, Callable[[int], np.ndarray]] = {
        "volumes": lambda patient: stored(simulate_volume(settings, patient, int(patient % 4 == 0))),
        "clips": lambda patient: simulate_clip(settings, patient, int(patient % 4 == 0)),
    }
    print(f"threshold: {THRESHOLD}\n")
    for kind, n, among in (("volumes", arguments.volumes, 400), ("clips", arguments.clips, 200)):
        arrays = [simulate[kind](patient) for patient in range(n)]
        plain = [describe_content(array) for array in arrays]
        print(f"| {n} {kind} | similarity |\n|---|---|\n| different patients, highest | {most_similar(plain):.3f} |")
        for name, change in SITES[kind].items():
            odd = [describe_content(change(array)) for array in arrays[:SITE]]
            highest = max(
                most_similar(plain[: SITE - size] + odd[SITE - size :], slice(SITE - size, None)) for size in ODD
            )
            print(f"| the same of an odd site: {name} | {highest:.3f} |")
        for name, change in COPIES[kind].items():
            copies = [describe_content(change(array)) for array in arrays[: arguments.copies]]
            vectors = remove_common(plain[:among] + copies)
            lowest = (vectors[: len(copies)] * vectors[-len(copies) :]).sum(1).min()
            print(f"| copies, lowest: {name} | {lowest:.3f} |")
        print(f"\npairs found among the {n}: {len(find_duplicates(plain, list(map(str, range(n)))))}\n")


if __name__ == "__main__":
    main()
