"""From a hospital's folder to a cohort, start to finish."""

import hashlib
import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_modules.cohort import Modality
from data_modules.errors import InputError
from data_modules.ingest.dicom import read_series
from data_modules.ingest.discovery import find_mri, find_tvus, list_files
from data_modules.ingest.images import Rejection, SourceImage, Unusable
from data_modules.ingest.labels import LabelRow, read_labels
from data_modules.ingest.manifest import write_cohort
from data_modules.ingest.matching import MatchedImage, Matching
from data_modules.ingest.nifti import read_nifti
from data_modules.ingest.pseudonyms import Pseudonyms, open_key
from data_modules.ingest.video import read_clip
from data_modules.ingest.volume import to_grid
from data_modules.ingest.workers import Map, count_workers, open_workers
from data_modules.inspection import write_report
from data_modules.store import read_record, write_array

FORMAT = 1  # raised when the same source would be stored otherwise, so that it is made anew
FILES_A_WORKER = 16  # fewer are not worth starting a process
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class IngestSummary:
    """What became of a source folder; as text, one line to print.

    Attributes:
        modality: ``"mri"`` or ``"tvus"``.
        cases: In the manifest.
        patients: Of these cases.
        labelled: Cases with a label.
        obliterated: Cases with label 1.
        kept: Cases that an earlier run had stored already.
        rejected: Entries of rejected.csv for this modality.
        ignored_columns: Columns of the label CSV that are not covariates.
        rejected_file: Where they are listed.
    """

    modality: Modality
    cases: int
    patients: int
    labelled: int
    obliterated: int
    kept: int
    rejected: int
    ignored_columns: tuple[str, ...]
    rejected_file: Path

    def __str__(self) -> str:
        text = f"{self.cases} cases of {self.patients} patients, {self.labelled} labelled, {self.obliterated} obliterated"
        text += f"; {self.kept} were stored already" if self.kept else ""
        text += f"; {self.rejected} left out, see {self.rejected_file}" if self.rejected else ""
        if self.ignored_columns:
            text += f"; columns that are no covariates: {', '.join(self.ignored_columns)}"
        return text


def ingest_mri(
    src: str | Path,
    out: str | Path,
    labels: str | Path | None = None,
    shape: tuple[int, int, int] = (16, 48, 48),
    spacing: tuple[float, float, float] = (4.0, 2.0, 2.0),
    folds: int = 5,
    seed: int = 0,
    workers: int = 0,
    strict: bool = False,
    progress: Progress | None = None,
) -> IngestSummary:
    """Turns DICOM and NIfTI volumes into the MRI of a cohort.

    Started again after a kill it goes on where it stopped. Patients' pseudonyms come from the key in ``<out>.key``, which
    is made on first use: keep it secret, and keep it, for the same patient of the other modality needs the same one.

    Args:
        src: Folder of files, with ``labels.csv``; or the folder above ``mri``.
        out: The cohort folder.
        labels: Label CSV; None: ``src/labels.csv``, and if that is missing all cases are unlabelled.
        shape: Stored voxels (D, H, W).
        spacing: Stored voxel size along D, H and W, mm.
        folds: Number of folds K, at least 3.
        seed: Of the folds.
        workers: Processes; 0: one a core.
        strict: Stop at the first defect instead of listing it in rejected.csv.
        progress: Told how many cases of how many are done.

    Raises:
        InputError: A folder, the label CSV or an option is wrong, no case is left, or, if ``strict``, a file is defective.
    """
    _check_sizes(shape=shape, spacing=spacing)
    parameters = {"shape": tuple(shape), "spacing": tuple(spacing)}
    return _Ingest("mri", Path(src), Path(out), labels, parameters, folds, seed, workers, strict, progress).run()


def ingest_tvus(
    src: str | Path,
    out: str | Path,
    labels: str | Path | None = None,
    shape: tuple[int, int, int] = (16, 64, 64),
    folds: int = 5,
    seed: int = 0,
    workers: int = 0,
    strict: bool = False,
    progress: Progress | None = None,
) -> IngestSummary:
    """Turns video files and multi-frame DICOM ultrasound into the clips of a cohort; otherwise as `ingest_mri`.

    Args:
        src: Folder of files, with ``labels.csv``; or the folder above ``tvus``.
        out: The cohort folder.
        labels: Label CSV; None: ``src/labels.csv``, and if that is missing all cases are unlabelled.
        shape: Stored frames and pixels (T, H, W).
        folds: Number of folds K, at least 3.
        seed: Of the folds.
        workers: Processes; 0: one a core.
        strict: Stop at the first defect instead of listing it in rejected.csv.
        progress: Told how many cases of how many are done.

    Raises:
        InputError: As `ingest_mri`.
    """
    _check_sizes(shape=shape)
    parameters = {"shape": tuple(shape)}
    return _Ingest("tvus", Path(src), Path(out), labels, parameters, folds, seed, workers, strict, progress).run()


@dataclass(frozen=True)
class _Task:
    """A case to make: all that a worker needs."""

    case_id: str
    image: SourceImage
    source: Path
    target: Path
    parameters: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Ingest:
    modality: Modality
    source: Path
    out: Path
    labels: str | Path | None
    parameters: dict[str, Any]
    folds: int
    seed: int
    workers: int
    strict: bool
    progress: Progress | None

    def run(self) -> IngestSummary:
        self._check_folders()
        labels = Path(self.labels) if self.labels else self.source / "labels.csv"
        rows, ignored = read_labels(labels) if self.labels or labels.is_file() else ([], [])
        files = list_files(self.source, without=labels)
        n_workers = count_workers(self.workers, len(files), FILES_A_WORKER)
        with open_key(self.out.with_name(f"{self.out.name}.key")) as pseudonyms, open_workers(n_workers) as over:
            find = find_mri if self.modality == "mri" else find_tvus
            images, rejections, identities = find(self.source, files, over)
            matching = Matching(self.source, labels, images, rows, one_a_study=self.modality == "mri")
            rejections += matching.rejections
            self._stop_if_strict(rejections)
            tasks = self._tasks(matching.matched, pseudonyms)
            made = self._make(tasks, over)
            rejections += [made[task.case_id] for task in tasks if isinstance(made[task.case_id], Rejection)]  # type: ignore[misc]
            cases = [
                (task.case_id, match)
                for task, match in zip(tasks, matching.matched, strict=True)
                if not isinstance(made[task.case_id], Rejection)
            ]
            identities |= {row.patient: row.patient for row in rows}
            table = self._table(cases, pseudonyms)
            given = {pseudonyms.patient(row.patient): row.fold for row in rows if row.fold is not None}
            conceal = pseudonyms.concealer(identities)
            write_cohort(self.out, self.modality, table, given, self.folds, self.seed, rejections, conceal)
        write_report(self.out)
        return IngestSummary(
            modality=self.modality,
            cases=len(table),
            patients=table["patient_id"].nunique(),
            labelled=int(table["label"].notna().sum()),
            obliterated=int(table["label"].eq(1).sum()),
            kept=sum(state is True for state in made.values()),
            rejected=len(rejections),
            ignored_columns=tuple(ignored),
            rejected_file=self.out / "rejected.csv",
        )
