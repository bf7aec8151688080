"""Rate at which hospital files become a cohort, against MONAI for volumes and a plain OpenCV loop for AVI clips.

    .venv/bin/python benchmarks/ingest.py [--volumes 60] [--clips 160] [--folder DIR] [--rounds 7]

The files are simulated at a hospital's size: half of the volumes DICOM series, half NIfTI; clips AVI and DICOM. MONAI
goes through its `PersistentDataset` once, which fills its cache: the same grid, orientation, percentiles and float16.
Checked first: both store the same volumes, and clips are what OpenCV decodes, which the loop only scales. A second run
finds everything stored: poddistill's checks that no file has changed and writes the manifests anew, MONAI's reads its
cache; so poddistill's is also timed with reading all arrays. Start-up is what a small folder takes longer in a new
process; it is no part of the rates. Every process has one thread.
"""

import csv
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from ingest_checks import check_clips, check_volumes
from ingest_sides import CLIP_SHAPE, SHAPE, SIDES, remove, start_up
from timing import in_turns, machine, options, ratio, table

from data_modules.simulate.cohort import simulate_cohort
from data_modules.simulate.settings import SimulationSettings
from data_modules.store import read_array

SMALL = 4  # cases of the folder that start-up is measured on
START_UPS = 3
BESIDES = {
    "poddistill_mri": "chooses series, checks, de-identifies, folds, report",
    "poddistill_tvus": "finds the sector, checks, de-identifies, folds, report",
}


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        name: As printed.
        side: Key of `SIDES`.
        source: Folder that it reads.
        cases: Number of cases there.
        workers: Processes.
    """

    name: str
    side: str
    source: Path
    cases: int
    workers: int

    def measure(self, out: Path) -> dict[str, float]:
        """Returns the seconds of a first run, a second, and a second that ends with all arrays in memory."""
        times = {}
        for run in ("first", "second"):
            start = time.perf_counter()
            SIDES[self.side](self.source, out, self.workers)
            times[run] = time.perf_counter() - start
        start = time.perf_counter()
        for file in sorted(out.rglob("*.npy")):
            np.array(read_array(file))
        times["read"] = times["second"] + (time.perf_counter() - start)
        remove(out)
        return times


def simulate(folder: Path, volumes: int, clips: int) -> None:
    """Writes hospital files, and beside them folders with the AVI clips alone and with a few cases."""
    settings = SimulationSettings(
        n_labelled=volumes - volumes // 2,
        n_unlabelled=volumes // 2,
        n_clips=clips,
        volume_shape=(24, 160, 160),
        clip_shape=(32, 128, 128),
    )
    simulate_cohort(folder / "hospital", settings)
    (folder / "avi").mkdir()
    for file in sorted((folder / "hospital/tvus").glob("*.avi")):
        shutil.copy(file, folder / "avi")
    for modality in ("mri", "tvus"):
        whole, small = folder / "hospital" / modality, folder / "small" / modality
        small.mkdir(parents=True)
        rows = list(csv.DictReader((whole / "labels.csv").read_text().splitlines()))
        chosen = [row for row in rows if modality == "mri" or row["path"].endswith(".avi")][:SMALL]
        for row in chosen:
            copy = shutil.copytree if (whole / row["path"]).is_dir() else shutil.copy
            (small / row["path"]).parent.mkdir(parents=True, exist_ok=True)
            copy(whole / row["path"], small / row["path"])
        with (small / "labels.csv").open("w", newline="") as labels:
            writer = csv.DictWriter(labels, list(rows[0]))
            writer.writeheader()
            writer.writerows(chosen)


def show(rows: list[Row], base: Row, results: dict[str, list[dict[str, float]]], starts: dict[str, float]) -> None:
    """Prints the table of some rows; rates are compared with the base's."""
    columns = ("side", "first run, s", "cases/s", "rate, as a multiple (range)", "second run, s")
    lines = []
    for row in rows:
        times = {name: [result[name] for result in results[row.name]] for name in results[row.name][0]}
        first, second, read = (statistics.median(times[name]) for name in ("first", "second", "read"))
        rate = "1" if row is base else ratio([result["first"] for result in results[base.name]], times["first"])
        rate = rate if row.source == base.source else ""  # other files
        ours = row.side.startswith("poddistill")
        again = f"{second:.2f}, with reading {read:.2f}" if ours else f"{second:.2f}"
        cells = (row.name, f"{first:.2f}", f"{row.cases / first:.2f}", rate, "" if row.side == "opencv" else again)
        lines.append((*cells, f"{starts[row.side]:.1f}", BESIDES.get(row.side, "nothing")))
    print(table((*columns, "start-up, s", "does besides"), lines) + "\n")


def main() -> None:
    """Simulates, checks, times all sides in turns and prints the tables."""
    parser = options(__doc__)
    parser.add_argument("--volumes", type=int, default=60)
    parser.add_argument("--clips", type=int, default=160, help="below about 80, too few are AVI for two processes")
    parser.add_argument(
        "--folder", type=Path, help="where to write, on the disk that counts (default: a temporary one)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder, scratch = Path(name), Path(name) / "scratch"
        simulate(folder, arguments.volumes, arguments.clips)
        mri, tvus, avi = folder / "hospital/mri", folder / "hospital/tvus", folder / "avi"
        n_avi = len(list(avi.iterdir()))
        difference = check_volumes(mri, scratch, arguments.volumes)
        like = check_clips(avi, scratch, n_avi)
        processes = {1: "1 process", 2: "2 processes"}
        volumes = [
            Row(f"{name}, {text}", side, mri, arguments.volumes, n)
            for name, side in (("MONAI", "monai"), ("poddistill", "poddistill_mri"))
            for n, text in processes.items()
        ]
        clips = [Row("AVI: OpenCV loop", "opencv", avi, n_avi, 1)] + [
            Row(f"{name}: poddistill, {text}", "poddistill_tvus", source, cases, n)
            for name, source, cases in (("AVI", avi, n_avi), ("all", tvus, arguments.clips))
            for n, text in processes.items()
        ]
        work = {row.name: partial(row.measure, scratch / str(number)) for number, row in enumerate([*volumes, *clips])}
        results = in_turns(work, arguments.rounds)
        starts = {}
        for side in SIDES:
            small = folder / "small" / ("mri" if side in ("monai", "poddistill_mri") else "tvus")
            starts[side] = statistics.median(start_up(side, small, scratch / "small") for _ in range(START_UPS))
    print(machine("torch", "monai", "pydicom", "nibabel", "opencv-python-headless"))
    print(f"\n## {arguments.volumes} volumes to {SHAPE} float16; MONAI's and ours differ by at most {difference:.4f}\n")
    show(volumes, volumes[0], results, starts)
    same = f"of each of the {n_avi} AVI at least {like:.1%} equals OpenCV's frames"
    print(f"## {arguments.clips} clips to {CLIP_SHAPE} uint8; {same}\n")
    show(clips, clips[0], results, starts)


if __name__ == "__main__":
    main()
