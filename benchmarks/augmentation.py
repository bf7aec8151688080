"""Random changes of training batches: ours for the whole batch, against MONAI's dictionary transforms.

    .venv/bin/python benchmarks/augmentation.py [--rounds 7]

Both mirror (clips also in time), turn, scale and shift the planes with edge values outside, raise intensities to a
power and add Gaussian noise, by random amounts of the same ranges, to float32 images that lie in memory; an epoch ends
with shuffled float32 batches. MONAI's transforms run as its users run them, in its DataLoader, without metadata and
with a cached grid, in the main process or in two workers; ours run in the main process. That has as many threads on
both sides, and a worker has one, which is PyTorch's setting; all of them keep the memory that they free, as `poddistill
fit` lets its own process do. Checked first: what is drawn gives the same image on both sides, and noise of one standard
deviation has it on both.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from monai.data import DataLoader, Dataset, set_track_meta
from monai.transforms import (
    AdjustContrast,
    Affine,
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoise,
    RandGaussianNoised,
)
from timing import in_turns, machine, options, ratio, table
from torch import Tensor

from data_modules.augmentation import Change, ClipAugmentation, VolumeAugmentation, apply
from poddistill.training.memory import keep_freed_memory

ROTATION, ZOOM, SHIFT, GAMMA, NOISE = 10.0, 0.1, 0.05, 0.2, 0.03
WORKERS = (0, 2)
TOLERANCE = 1e-4  # of images in [0, 1]


@dataclass(frozen=True)
class Images:
    """What is changed.

    Attributes:
        name: As printed.
        shape: (D, H, W) or (T, H, W).
        count: Images an epoch.
        batch_size: Images a batch.
        augmentation: Ours.
        mirrored: Axes of the shape that MONAI's transforms mirror.
    """

    name: str
    shape: tuple[int, int, int]
    count: int
    batch_size: int
    augmentation: VolumeAugmentation | ClipAugmentation
    mirrored: tuple[int, ...]


PLANE = {"rotation": ROTATION, "zoom": ZOOM, "shift": SHIFT}
VOLUME = VolumeAugmentation(flip=0.5, slices=0, **PLANE, contrast=0.0, gamma=GAMMA, noise=NOISE)
CLIP = ClipAugmentation(flip=0.5, reverse=0.5, **PLANE, contrast=0.0, gamma=GAMMA, noise=NOISE)
COMPARED = (
    Images("volumes of the demo", (16, 48, 48), 256, 16, VOLUME, (0,)),
    Images("volumes", (64, 96, 96), 32, 8, VOLUME, (0,)),
    Images("clips", (16, 64, 64), 128, 16, CLIP, (2, 0)),
)


def transforms(images: Images) -> Compose:
    """Returns MONAI's transforms of the same kinds and ranges."""
    keys, (_, height, width) = ["image"], images.shape
    affine = RandAffined(
        keys,
        spatial_size=images.shape,
        prob=1.0,
        rotate_range=(math.radians(ROTATION), 0.0, 0.0),
        translate_range=(0.0, SHIFT * height, SHIFT * width),
        scale_range=(0.0, ZOOM, ZOOM),
        mode="bilinear",
        padding_mode="border",
        cache_grid=True,
    )
    flips = [RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in images.mirrored]
    gamma = RandAdjustContrastd(keys, prob=1.0, gamma=(math.exp(-GAMMA), math.exp(GAMMA)))
    return Compose([*flips, affine, gamma, RandGaussianNoised(keys, prob=1.0, std=NOISE)])


def check(images: Images) -> float:
    """Returns the greatest difference between both sides' images where the drawn numbers are the same.

    Raises:
        SystemExit: It is more than `TOLERANCE`, or noise has another standard deviation than it should have.
    """
    batch = torch.rand(images.batch_size, 1, *images.shape)
    batch[..., 0, 0], batch[..., -1, -1] = 0.0, 1.0  # MONAI's gamma acts between the extremes, ours between 0 and 1
    change, worst = images.augmentation.draw(batch), 0.0
    assert change.order is not None and change.matrix is not None and change.exponent is not None
    moved = apply(batch, Change(order=change.order, matrix=change.matrix))
    raised = apply(batch, Change(exponent=change.exponent))
    for i, image in enumerate(batch):
        affine = Affine(affine=in_pixels(change.matrix[i], images.shape), padding_mode="border", image_only=True)
        contrast = AdjustContrast(float(change.exponent[i]))
        for ours, theirs in ((moved[i], affine(image[:, change.order[i]])), (raised[i], contrast(image))):
            worst = max(worst, float((ours - theirs).abs().max()))
    grey = torch.full_like(batch, 0.5)
    noise = Change(deviation=torch.full((len(batch),), NOISE), seed=torch.arange(len(batch)))
    theirs = RandGaussianNoise(prob=1.0, std=NOISE, sample_std=False)(grey)
    for name, noisy in (("poddistill", apply(grey, noise)), ("MONAI", theirs)):
        if abs(float(noisy.std()) / NOISE - 1) > 0.01:
            raise SystemExit(f"error: {name}'s noise has a standard deviation of {float(noisy.std())}, not {NOISE}")
    if worst > TOLERANCE:
        raise SystemExit(f"error: {images.name}: both sides' images differ by up to {worst}")
    return worst


def in_pixels(matrix: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Returns the matrix (2, 3) of a `Change` as MONAI takes it: (4, 4), in pixels from the centre, axes in order."""
    _, height, width = shape
    (xx, xy, x), (yx, yy, y) = matrix.double()
    rows = [[1, 0, 0, 0], [0, yy, yx * height / width, y * height / 2], [0, xy * width / height, xx, x * width / 2]]
    return torch.tensor([*rows, [0, 0, 0, 1]], dtype=torch.float64)


def ours(images: Images, data: Tensor) -> float:
    """Returns the seconds of an epoch through our augmentation."""
    start = time.perf_counter()
    for chosen in torch.randperm(len(data)).split(images.batch_size):
        images.augmentation(data[chosen])
    return time.perf_counter() - start


def through(loader: DataLoader) -> float:
    """Returns the seconds of an epoch of a loader."""
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def sides_of(images: Images) -> dict[str, Callable[[], float]]:
    """Returns what is timed: an epoch on each side, by the side's name."""
    data = torch.rand(images.count, 1, *images.shape)
    dataset = Dataset([{"image": image} for image in data], transforms(images))
    sides: dict[str, Callable[[], float]] = {"poddistill": lambda: ours(images, data)}
    for workers in WORKERS:
        loader = DataLoader(
            dataset, batch_size=images.batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        sides[f"MONAI, {workers} workers"] = lambda loader=loader: through(loader)
    return sides


def main() -> None:
    """Checks, times all sides in turns and prints the table."""
    arguments = options(__doc__).parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    set_track_meta(False)  # with it every transform copies a header along
    differences, rows = [], []
    for images in COMPARED:
        differences.append(check(images))
        results = in_turns(sides_of(images), arguments.rounds)
        for side, seconds in results.items():
            faster = "" if side == "poddistill" else ratio(seconds, results["poddistill"], 1)
            ms = f"{1e3 * statistics.median(seconds) / images.count:.2f}"
            rows.append([f"{images.name} {images.shape}", images.batch_size, side, ms, faster])
    print(machine("torch", "monai"))
    print(f"{torch.get_num_threads()} threads; with the same draws images differ by at most {max(differences):.1e}\n")
    print(table(["images", "batch", "side", "ms an image", "poddistill is faster by a factor of (range)"], rows))


if __name__ == "__main__":
    main()
