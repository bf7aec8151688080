"""Which format the store should have: mapped .npy (today's), blosc2 or zarr, by size, time and memory.

    .venv/bin/python benchmarks/store.py [--cases 40] [--folder DIR] [--rounds 7]

Contents are simulated: volumes are brought from a hospital's slices to the cohort's grid, as ingest does, for what
compresses depends on what is stored. A read ends with the array in the process's own memory. Warm means that the files
are in the page cache, cold that they were put out of it, which is verified. A loader's batch becomes a float32 tensor
in its worker. Formats take turns in shuffled order; blosc2 runs on one thread, as in a loader's worker. Writing is
timed up to the page cache.
"""

import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
from page_cache import drop, files_of, free_memory, own_memory
from store_formats import FORMATS, SHAPES, WHOLE, Format, Region, simulate
from timing import in_turns, machine, options, ratio, table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

CROPS = {"volumes": (48, 96, 96), "clips": (16, 96, 96)}
WRITTEN, BATCH, WORKERS = 8, 4, 2
WARM_PASSES = 3  # of a loader over all cases; short ones say little
STILL_CACHED = 0.02  # of a file, at most, for a read to be called cold
Measures = dict[str, float]


class Cases(Dataset):
    """Whole cases, a batch at a time, made float32 by the worker.

    So any format can be compared. `data_modules.cohort_dataset.CohortDataset`, for mapped arrays alone, copies them
    straight to the batch and leaves float32 to the device; `reading.py` times it.

    Args:
        form: The format.
        paths: Of the cases.
    """

    def __init__(self, form: Format, paths: Sequence[Path]) -> None:
        self.form, self.paths = form, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, items: Sequence[int]) -> Tensor:
        """Returns the batch (B, 1, D, H, W) of these items, float32 in [0, 1]."""
        stored = np.stack([self.form.hold(self.paths[item]) for item in items])
        batch = torch.from_numpy(stored).unsqueeze(1).float()
        return batch.div_(255) if stored.dtype == np.uint8 else batch


class Side:
    """The cases in one format, and its measures.

    Args:
        form: The format.
        folder: Where to write the cases.
        arrays: The cases.
        crops: The region to read of each.
    """

    def __init__(self, form: Format, folder: Path, arrays: Sequence[np.ndarray], crops: Sequence[Region]) -> None:
        self.form, self.arrays, self.crops, self.folder = form, arrays, crops, folder
        folder.mkdir(parents=True)
        self.paths = [folder / f"{case}{form.suffix}" for case in range(len(arrays))]
        for path, array, crop in zip(self.paths, arrays, crops, strict=True):
            form.write(path, array)
            for region in (WHOLE, crop):
                read = form.read(path, region)
                if read.dtype != array.dtype or not np.array_equal(read, array[region]):
                    raise SystemExit(f"error: {path} does not give back what was written")
        self.still_cached = 0.0
        self.loader = DataLoader(
            Cases(form, self.paths), BATCH, num_workers=WORKERS, persistent_workers=True, collate_fn=lambda batch: batch
        )

    def size(self) -> tuple[float, float]:
        """Returns MB and files a case."""
        files = [file for path in self.paths for file in files_of(path)]
        return sum(file.stat().st_size for file in files) / 1e6 / len(self.paths), len(files) / len(self.paths)

    def measure(self) -> Measures:
        """Returns ms a case of each kind of work."""
        whole = [WHOLE] * len(self.paths)
        measures = {
            "write": self._write(),
            # whole files are read last of the cold, which leaves them in the cache for the warm
            "crop, cold": self._read(self.crops, cold=True),
            "whole, cold": self._read(whole, cold=True),
            "whole, warm": self._read(whole, cold=False),
            "crop, warm": self._read(self.crops, cold=False),
            "loader, warm": self._load(WARM_PASSES, cold=False),
            "loader, cold": self._load(1, cold=True),
        }
        return {name: 1e3 * seconds for name, seconds in measures.items()}

    def _write(self) -> float:
        folder = self.folder / "written"
        folder.mkdir()
        written = self.arrays[:WRITTEN]
        start = time.perf_counter()
        for path, array in zip(self.paths, written, strict=False):
            self.form.write(folder / path.name, array)
        seconds = time.perf_counter() - start
        shutil.rmtree(folder)
        return seconds / len(written)

    def _read(self, regions: Sequence[Region], cold: bool) -> float:
        seconds = 0.0
        for path, region in zip(self.paths, regions, strict=True):
            if cold:
                self.still_cached = max(self.still_cached, drop(path))
            start = time.perf_counter()
            self.form.read(path, region)
            seconds += time.perf_counter() - start
        return seconds / len(self.paths)

    def _load(self, passes: int, cold: bool) -> float:
        if cold:
            self.still_cached = max(self.still_cached, *map(drop, self.paths))
        start = time.perf_counter()
        cases = sum(len(batch) for _ in range(passes) for batch in self.loader)
        return (time.perf_counter() - start) / cases


def memory(form: Format, paths: Sequence[Path], keep: bool) -> tuple[float, float]:
    """Returns what a reader of all cases adds to a process's memory while another reads them too, MB a process.

    Args:
        form: The format.
        paths: The cases.
        keep: Every case is kept at hand; otherwise only the last.

    Returns:
        Memory of its own, and that plus its part of what it shares.
    """
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(WORKERS), context.SimpleQueue()
    processes = [context.Process(target=_hold, args=(form, paths, keep, barrier, results)) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    added = [results.get() for _ in processes]
    for process in processes:
        process.join()
    own, proportional = (statistics.mean(values) for values in zip(*added, strict=True))
    return own, proportional


def _hold(form: Format, paths: Sequence[Path], keep: bool, barrier: Barrier, results: SimpleQueue) -> None:
    form.hold(paths[0])  # whatever the library sets up once
    free_memory()
    before = own_memory()
    held: list[np.ndarray] = []
    for path in paths:
        if not keep:
            held.clear()
        held.append(form.hold(path))
        held[-1].reshape(-1).view(np.uint8)[::1024].sum()  # touches every page
    barrier.wait(60)
    after = own_memory()
    barrier.wait(60)  # pages are shared as long as both have them
    results.put(tuple(late - early for late, early in zip(after, before, strict=True)))


def compare(kind: str, folder: Path, cases: int, rounds: int) -> None:
    """Measures all formats on one kind of case and prints the tables."""
    rng = np.random.default_rng(0)
    arrays = [simulate(kind, case) for case in range(cases)]
    starts = [[rng.integers(n - c + 1) for n, c in zip(SHAPES[kind], CROPS[kind], strict=True)] for _ in arrays]
    crops = [tuple(slice(s, s + c) for s, c in zip(start, CROPS[kind], strict=True)) for start in starts]
    sides = {
        name: Side(form, folder / kind / str(number), arrays, crops)
        for number, (name, form) in enumerate(FORMATS.items())
    }
    results = in_turns({name: side.measure for name, side in sides.items()}, rounds)
    by_measure = {
        name: {measure: [result[measure] for result in values] for measure in values[0]}
        for name, values in results.items()
    }
    base = by_measure[next(iter(FORMATS))]
    medians, ratios, memories = [], [], []
    for name, side in sides.items():
        measured = by_measure[name]
        sizes = [f"{value:.2f}".removesuffix(".00") for value in side.size()]
        ms = {measure: statistics.median(values) for measure, values in measured.items()}
        per_case = [f"{1e3 / v:.0f}/s" if measure.startswith("loader") else f"{v:.2f}" for measure, v in ms.items()]
        medians.append([name, *sizes, *per_case])
        of_base = [
            ratio(values, base[measure]) if measured is not base else "1" for measure, values in measured.items()
        ]
        ratios.append([name, *of_base])
        one, kept = (memory(side.form, side.paths, keep) for keep in (False, True))
        memories.append([name, *(f"{value:.1f}" for value in (one[0], kept[0], kept[1]))])
    total = sum(array.nbytes for array in arrays) / 1e6
    print(f"\n## {kind}: {cases} cases {SHAPES[kind]} {arrays[0].dtype}, crops {CROPS[kind]}\n")
    print(f"Size, and ms a case; cases a second of a loader with {WORKERS} workers and batches of {BATCH}:\n")
    print(table(["format", "MB", "files", *base], medians))
    print("\nTime as a multiple of the first format's, with the range over the rounds:\n")
    print(table(["format", *base], ratios))
    print(f"\nMemory that each of {WORKERS} processes adds when both read all {total:.0f} MB, in MB:\n")
    print(table(["format", "own, one case held", "own, all held", "own + part of shared, all held"], memories))
    still = max(side.still_cached for side in sides.values())
    verdict = "" if still <= STILL_CACHED else ": TOO MUCH, the cold figures are not cold on this file system"
    print(f"\nPage cache before a cold read: at most {still:.1%} of a file{verdict}")


def main() -> None:
    """Compares the formats on volumes and on clips."""
    parser = options(__doc__)
    parser.add_argument("--cases", type=int, default=40, help="volumes, and clips (default: 40)")
    parser.add_argument(
        "--folder", type=Path, help="where to write, on the disk that counts (default: a temporary one)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(machine("numpy", "blosc2", "zarr", "torch"))
        for kind in SHAPES:
            compare(kind, Path(folder), arguments.cases, arguments.rounds)


if __name__ == "__main__":
    main()
