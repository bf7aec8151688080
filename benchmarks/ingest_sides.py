"""The sides that `ingest.py` compares: each turns a hospital folder into stored arrays, and can do so again.

Libraries are imported where they are used: what a side imports is part of its own start-up, and the processes of
poddistill's ingest import the script that started them.
"""

import csv
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SHAPE, SPACING = (96, 160, 160), (0.64, 0.6, 0.6)  # a finer grid within the images: nothing is padded or smoothed
CLIP_SHAPE = (32, 112, 112)
Side = Callable[[Path, Path, int], None]
"""Stores what is in a source folder in an output folder, with a number of processes."""


def poddistill_mri(source: Path, out: Path, workers: int) -> None:
    """Ingests volumes."""
    from data_modules.ingest import ingest_mri

    ingest_mri(source, out, shape=SHAPE, spacing=SPACING, workers=workers)


def poddistill_tvus(source: Path, out: Path, workers: int) -> None:
    """Ingests clips."""
    from data_modules.ingest import ingest_tvus

    ingest_tvus(source, out, shape=CLIP_SHAPE, workers=workers)


def monai_dataset(source: Path, out: Path) -> Any:
    """Returns MONAI's data set of the series folders and NIfTI files that the label CSV names, cached in ``out``."""
    import torch
    from monai.data import PersistentDataset
    from monai.transforms import (
        CastToType,
        Compose,
        EnsureChannelFirst,
        LoadImage,
        Orientation,
        ResizeWithPadOrCrop,
        ScaleIntensityRangePercentiles,
        Spacing,
    )

    with (source / "labels.csv").open() as file:
        images = [str(source / row["path"]) for row in csv.DictReader(file)]
    chain = [
        LoadImage(),
        EnsureChannelFirst(),
        Orientation("LIP", labels=None),
        Spacing(SPACING),
        ResizeWithPadOrCrop(SHAPE),
        ScaleIntensityRangePercentiles(1, 99, 0, 1, clip=True),
        CastToType(torch.float16),
    ]
    return PersistentDataset(images, Compose(chain), cache_dir=out)


def monai(source: Path, out: Path, workers: int) -> None:
    """Goes through MONAI's data set once: fills its cache, or reads it."""
    import torch
    from torch.utils.data import DataLoader

    dataset = monai_dataset(source, out)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a thread a process, as poddistill's
    # of each volume only a number comes back from the processes: what counts is the cache
    for _ in DataLoader(dataset, num_workers=workers if workers > 1 else 0, collate_fn=len):
        pass
    torch.set_num_threads(threads)


def opencv(source: Path, out: Path, workers: int) -> None:
    """Decodes every video in a loop and saves grey frames of the stored size, evenly chosen."""
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.rglob("*.avi")):
        frames = decode(file)
        chosen = np.linspace(0, len(frames) - 1, CLIP_SHAPE[0]).round().astype(int)
        scaled = [cv2.resize(frames[index], CLIP_SHAPE[:0:-1], interpolation=cv2.INTER_AREA) for index in chosen]
        np.save(out / f"{file.stem}.npy", np.stack(scaled))


def decode(file: Path) -> np.ndarray:
    """Returns the grey frames (T, H, W) of a video."""
    capture, frames = cv2.VideoCapture(str(file)), []
    while True:
        whole, frame = capture.read()
        if not whole:
            break
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
    capture.release()
    return np.stack(frames)


SIDES: dict[str, Side] = {
    "poddistill_mri": poddistill_mri,
    "poddistill_tvus": poddistill_tvus,
    "monai": monai,
    "opencv": opencv,
}


def remove(out: Path) -> None:
    """Removes what a side has stored."""
    shutil.rmtree(out, ignore_errors=True)
    out.with_name(f"{out.name}.key").unlink(missing_ok=True)


def start_up(side: str, source: Path, out: Path) -> float:
    """Returns how many seconds longer a small folder takes in a new process than once that has started."""
    command = [sys.executable, __file__, side, str(source), str(out), str(time.time())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def main() -> None:
    """Runs a side on a folder several times, for `start_up`, and prints by how much the first took longest."""
    run, source, out = SIDES[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    run(source, out, 1)
    first = time.time() - float(sys.argv[4])
    later = []
    for _ in range(3):
        remove(out)
        start = time.perf_counter()
        run(source, out, 1)
        later.append(time.perf_counter() - start)
    print(first - statistics.median(later))


if __name__ == "__main__":
    main()
