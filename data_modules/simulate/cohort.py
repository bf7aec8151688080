"""Writes a whole simulated cohort as hospital files."""

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2

from data_modules.errors import InputError
from data_modules.files import name_beside
from data_modules.simulate.anatomy import patient_anatomy
from data_modules.simulate.covariates import draw_covariates
from data_modules.simulate.hospital_mri import write_mr_series, write_nifti
from data_modules.simulate.hospital_tvus import write_clip
from data_modules.simulate.identity import draw_identity
from data_modules.simulate.mri import patient_site, simulate_volume
from data_modules.simulate.roster import Examination, examinations
from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.streams import Stream, generator
from data_modules.simulate.tvus import drag, draw_sweep, simulate_clip

LARGER_GRID_SHARE = 0.3

Row = dict[str, object]


def simulate_cohort(
    out: Path,
    settings: SimulationSettings,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Simulate a cohort and write it as hospital files.

    ``out/mri`` and ``out/tvus`` hold a ``labels.csv`` each (patient_id, label, path, covariates, with `site_folds` the
    MRI's fold; the label is empty for unlabelled patients) and the files it names. ``out/truth.csv`` holds what no
    hospital knows (true labels, severity, gap), ``out/settings.json`` the settings. Everything is written to a hidden
    folder beside ``out`` (``.NAME.partial.ID``) and renamed at the end, so that a killed run leaves no folder that
    looks complete.

    Args:
        out: Folder to create.
        settings: What to simulate.
        workers: Processes; the files do not depend on their number.
        progress: Called with (done, total) after every patient.

    Raises:
        InputError: If ``out`` exists and is not an empty folder, or workers is below 1.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}, but must be at least 1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder: choose another --out or remove it")
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial_out = name_beside(out.with_name(f"{out.name}.partial"))
    try:
        for modality in ("mri", "tvus"):
            (partial_out / modality).mkdir(parents=True)
        todo = examinations(settings)
        rows, truths = [], []
        with _mapper(workers) as apply:
            for done, (row, truth) in enumerate(apply(partial(_write, settings, partial_out), todo), start=1):
                rows.append(row)
                truths.append(truth)
                if progress:
                    progress(done, len(todo))
        for modality in ("mri", "tvus"):
            own = [row for row, truth in zip(rows, truths, strict=True) if truth["modality"] == modality]
            _write_csv(partial_out / modality / "labels.csv", own)
        _write_csv(partial_out / "truth.csv", truths)
        (partial_out / "settings.json").write_text(json.dumps(asdict(settings), indent=2) + "\n")
        partial_out.replace(out)
    finally:
        shutil.rmtree(partial_out, ignore_errors=True)


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterable[tuple[Row, Row]]]]:
    """Give a `map`, in this process or over several."""
    if workers == 1:
        yield map
        return
    # Spawned, not forked: the parent may run threads (a progress bar, torch).
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        try:
            yield partial(pool.map, chunksize=4)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write(settings: SimulationSettings, out: Path, examination: Examination) -> tuple[Row, Row]:
    """Simulate and write one examination; return its rows of ``labels.csv`` and ``truth.csv``."""
    patient, label, modality = examination.patient, examination.label, examination.modality
    anatomy = patient_anatomy(settings, patient, label)
    covariates = draw_covariates(
        generator(settings.seed, patient, Stream.COVARIATES),
        anatomy.severity,
        anatomy.endometrioma,
        anatomy.retroverted,
        settings.covariate_strength,
    )
    rng = generator(settings.seed, patient, Stream.HOSPITAL)
    identity = draw_identity(rng, settings.seed, patient, covariates.age)
    folder = out / modality
    truth: Row = {
        "modality": modality,
        "patient_id": identity.patient_id,
        "label": label,
        "severity": round(anatomy.severity, 4),
        "gap_mm": "",
        "drag": "",
    }
    if modality == "mri":
        larger = rng.uniform() < LARGER_GRID_SHARE
        d, h, w = (int(n) * larger for n in rng.integers(0, [3, 7, 7]))
        volume = simulate_volume(settings, patient, label, margin=(d, h, w))
        if examination.written_label is None:
            path = write_nifti(volume, settings.voxel_mm, folder, identity, rng)
        else:
            site = patient_site(settings, patient)
            path = write_mr_series(volume, settings.voxel_mm, folder, identity, settings.seed, patient, site, rng)
        truth["gap_mm"] = round(anatomy.gap, 3)
    else:
        clip = simulate_clip(settings, patient, label)
        sweep = draw_sweep(generator(settings.seed, patient, Stream.TVUS))
        path = write_clip(clip, settings.pixel_mm, sweep.duration, folder, identity, settings.seed, patient, rng)
        truth["drag"] = round(drag(anatomy, sweep), 4)
    labelled = examination.written_label is not None
    row: Row = {
        "patient_id": identity.patient_id,
        "label": examination.written_label if labelled else "",
        "path": path.relative_to(folder).as_posix(),
        **covariates.as_row(),
    }
    if settings.site_folds and modality == "mri":
        row["fold"] = patient_site(settings, patient) if labelled else ""
    return row, truth


def _write_csv(path: Path, rows: list[Row]) -> None:
    """Write rows in the order of their patient numbers, which tells nothing."""
    if not rows:
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: str(row["patient_id"])))
