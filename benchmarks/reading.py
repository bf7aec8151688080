"""Reading a training epoch: our store against hospital files read anew each epoch, and MONAI's `CacheDataset`.

    .venv/bin/python benchmarks/reading.py [--volumes 160] [--clips 480] [--folder DIR] [--rounds 7]

The files are simulated: volumes as compressed NIfTI, clips as motion JPEG. poddistill reads the cohort that its ingest
made of them. MONAI reads the NIfTI files by its transforms (load, orientation, spacing, crop, percentiles), or keeps
the stored volumes in memory; OpenCV decodes and scales the videos. An epoch ends with float32 batches in the main
process, which looks at a value of each page of theirs; they are shuffled, of the same size and from as many workers on
both sides. Checked first: both sides deliver the same arrays. Files lie in the page cache, epochs begin with running
workers. Times are per case, for hospital files are few and the store's cases many; these repeat the few, each as a file
of its own. All processes keep the memory that they free, as `poddistill fit` lets its own do.

Memory is measured in a process of its own: the greatest during two epochs, less what it held before the data set was
made. It counts what all processes allocated and batches in shared memory; it leaves out the page cache that holds the
store's files, for the kernel drops that as soon as memory is asked for, and reads again.
"""

import mmap
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import cv2
import numpy as np
import torch
from ingest_checks import check_clips, check_volumes
from ingest_sides import CLIP_SHAPE, SHAPE, SIDES
from reading_cohort import write_cohort, write_nifti, write_videos
from reading_memory import held
from reading_sides import BATCH, Side, Videos, cached, data_module, load, opencv, poddistill, raw, through_monai
from timing import in_turns, machine, options, ratio, table

from poddistill.training.memory import keep_freed_memory

WORKERS = (0, 2, 4)
PAGE = mmap.PAGESIZE // 4  # float32 values
HOSPITAL = 16  # volumes and clips that are read from hospital files, a batch for each of four workers
VOLUMES, CACHED, RAW = "poddistill: volumes", "MONAI: CacheDataset", "MONAI: NIfTI and transforms"
CLIPS, VIDEOS = "poddistill: clips", "OpenCV: AVI"
Seconds = dict[str, list[float]]


def seconds_a_case(side: Side) -> float:
    """Reads an epoch and returns its seconds divided by its cases."""
    start, cases = time.perf_counter(), 0
    for image in side.epoch():
        if image.dtype != torch.float32:
            raise SystemExit(f"error: a batch is {image.dtype}, not float32")
        # A batch in a worker's shared memory has not arrived before its pages are looked at.
        image.as_subclass(torch.Tensor).view(-1)[::PAGE].sum()
        cases += len(image)
    return (time.perf_counter() - start) / cases


def check_cached(cohort: Path) -> None:
    """Checks that training batches of the store are what `CacheDataset` keeps.

    Raises:
        SystemExit: A volume differs, or one is missing.
    """
    data, seen = data_module(cohort, "mri", 2), set()
    for batch in data.train_dataloader():
        for image, row in zip(data.on_after_batch_transfer(batch, 0)["image"], batch["index"].tolist(), strict=True):
            seen.add(row)
            if not torch.equal(image, load(cohort / data.manifest["path"][row])):
                raise SystemExit(f"error: case {row} of the store's loader is not what MONAI caches")
    expected = int(data.manifest["split"].isin(["train", "unlabelled"]).sum())
    if len(seen) != expected:
        raise SystemExit(f"error: an epoch of the store has {len(seen)} cases, not {expected}")


def check_decoded(videos: Path, scratch: Path) -> float:
    """Checks `Videos` against OpenCV's plain loop, and that against the store; returns how much of a clip is equal."""
    SIDES["opencv"](videos, scratch / "decoded", 1)
    for file, clip in zip(sorted((scratch / "decoded").glob("*.npy")), Videos(sorted(videos.iterdir())), strict=True):
        if not np.array_equal(np.load(file), clip[0].mul(255).round().byte().numpy()):
            raise SystemExit(f"error: {file.stem} is not decoded as by the plain loop")
    return check_clips(videos, scratch, HOSPITAL)


def memory(name: str, workers: str, cohort: Path) -> float:
    """Returns the MB that reading adds to a new process and its workers."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=_read_and_tell, args=(name, int(workers), cohort, results))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"error: measuring the memory of {name} failed")
    return results.get()


def _read_and_tell(name: str, workers: int, cohort: Path, results: "SimpleQueue[float]") -> None:
    keep_freed_memory()
    multiprocessing.set_start_method("fork", force=True)  # of workers; this process would pass on that it was spawned
    before = held()
    side = poddistill(cohort, "mri", workers) if name == VOLUMES else through_monai(cached(cohort), workers)
    results.put(max(held() - before for _ in range(2) for _ in side.epoch()))


def rows_of(results: Seconds, base: str, others: Sequence[str]) -> list[list[str]]:
    """Returns a line a number of workers and side; results are named ``<side>, <workers>``."""
    rows = []
    for workers in WORKERS:
        for name in (base, *others):
            seconds = results[f"{name}, {workers}"]
            faster = "" if name == base else ratio(seconds, results[f"{base}, {workers}"], 1)
            rows.append([name, str(workers), f"{1e3 * statistics.median(seconds):.2f}", faster])
    return rows


def main() -> None:
    """Makes the data, checks, times all sides in turns, measures memory and prints the tables."""
    parser = options(__doc__)
    parser.add_argument("--volumes", type=int, default=160, help="training volumes in the store (default: 160)")
    parser.add_argument("--clips", type=int, default=480, help="training clips in the store (default: 480)")
    parser.add_argument(
        "--folder", type=Path, help="where to write, on the disk that counts (default: a temporary one)"
    )
    arguments = parser.parse_args()
    keep_freed_memory()
    cv2.setNumThreads(0)  # a worker that is forked once OpenCV has threads waits for them for ever
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder, cohort, scratch = Path(name), Path(name) / "cohort", Path(name) / "scratch"
        nifti, videos = write_nifti(folder, HOSPITAL), write_videos(folder, HOSPITAL)
        difference, like = check_volumes(nifti, scratch, HOSPITAL), check_decoded(videos, scratch)
        write_cohort(cohort, "mri", nifti, arguments.volumes)
        write_cohort(cohort, "tvus", videos, arguments.clips)
        check_cached(cohort)
        names = [f"{side}, {workers}" for workers in WORKERS for side in (VOLUMES, CACHED)]
        megabytes = {name: memory(*name.split(", "), cohort) for name in names}
        kept, files, sides = cached(cohort), raw(nifti, scratch), {}
        for workers in WORKERS:
            sides |= {
                f"{VOLUMES}, {workers}": poddistill(cohort, "mri", workers),
                f"{CACHED}, {workers}": through_monai(kept, workers),
                f"{RAW}, {workers}": through_monai(files, workers),
                f"{CLIPS}, {workers}": poddistill(cohort, "tvus", workers),
                f"{VIDEOS}, {workers}": opencv(videos, workers),
            }
        results = in_turns({key: partial(seconds_a_case, side) for key, side in sides.items()}, arguments.rounds)
    print(machine("torch", "monai", "nibabel", "opencv-python-headless"))
    columns = ["side", "workers", "ms a case", "poddistill is faster by a factor of (range)"]
    print(f"\n{arguments.volumes} volumes {SHAPE}, batches of {BATCH}; MONAI's differ by at most {difference:.4f}:\n")
    print(table(columns, rows_of(results, VOLUMES, (CACHED, RAW))))
    print(f"\n{arguments.clips} clips {CLIP_SHAPE}, batches of {BATCH}; at least {like:.1%} of each equals OpenCV's:\n")
    print(table(columns, rows_of(results, CLIPS, (VIDEOS,))))
    print(f"\nMemory that reading the {arguments.volumes} volumes takes, MB:\n")
    lines = []
    for workers in WORKERS:
        ours, theirs = (megabytes[f"{side}, {workers}"] for side in (VOLUMES, CACHED))
        lines.append([str(workers), f"{ours:.0f}", f"{theirs:.0f}", f"{ours / theirs:.2f}"])
    print(table(["workers", VOLUMES, CACHED, "poddistill's as a part of it"], lines))


if __name__ == "__main__":
    main()
