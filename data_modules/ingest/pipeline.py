"""From a hospital's folder to a cohort, start to finish."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_modules.cohort import Modality, check_fold_count
from data_modules.errors import InputError
from data_modules.ingest.cases import Case, is_stored, make_case, plan_cases
from data_modules.ingest.discovery import find_mri, find_tvus, list_files
from data_modules.ingest.images import Rejection
from data_modules.ingest.labels import LabelRow, read_labels
from data_modules.ingest.manifests import write_manifests, write_rejected
from data_modules.ingest.matching import Matching
from data_modules.ingest.pseudonyms import open_key
from data_modules.ingest.workers import Map, count_workers, open_workers
from data_modules.inspection import write_report

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
        text = (
            f"{self.cases} cases of {self.patients} patients, {self.labelled} labelled, {self.obliterated} obliterated"
        )
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

    Started again after a kill it goes on where it stopped. Patients' pseudonyms come from the key in ``<out>.key``,
    which is made on first use: keep it, for the patients of the other modality need the same one, and keep it secret.
    Pseudonyms order the patients, so the same key, seed and labels give the same folds.

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
        InputError: A folder, the label CSV or an option is wrong, no case is left, or, if ``strict``, a file is
            defective.
    """
    _check_sizes(shape=shape, spacing=spacing)
    parameters = {"shape": tuple(shape), "spacing": tuple(spacing)}
    label_file = None if labels is None else Path(labels)
    return _ingest("mri", Path(src), Path(out), label_file, parameters, folds, seed, workers, strict, progress)


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
    label_file = None if labels is None else Path(labels)
    return _ingest("tvus", Path(src), Path(out), label_file, parameters, folds, seed, workers, strict, progress)


def _ingest(
    modality: Modality,
    source: Path,
    out: Path,
    labels: Path | None,
    parameters: dict[str, Any],
    folds: int,
    seed: int,
    workers: int,
    strict: bool,
    progress: Progress | None,
) -> IngestSummary:
    check_fold_count(folds)
    source = _source_folder(source, out, modality)
    label_file = labels or source / "labels.csv"
    rows, ignored = read_labels(label_file) if labels or label_file.is_file() else ([], [])
    files = list_files(source, without=label_file)
    find = find_mri if modality == "mri" else find_tvus
    n_workers = count_workers(workers, len(files), FILES_A_WORKER)
    with open_key(out.with_name(f"{out.name}.key")) as pseudonyms, open_workers(n_workers) as over:
        images, rejections, identities = find(source, files, over)
        matching = Matching(source, label_file, images, rows, one_a_study=modality == "mri")
        rejections += matching.rejections
        _stop_if_strict(rejections, strict)
        cases = plan_cases(modality, source, out, matching.matched, parameters, pseudonyms)
        stored = [is_stored(case) for case in cases]
        outcomes = _make(cases, stored, over, strict, progress)
        rejections += [outcome for outcome in outcomes if outcome is not None]
        table = _table([case for case, outcome in zip(cases, outcomes, strict=True) if outcome is None], rows)
        conceal = pseudonyms.concealer(identities | {row.patient: row.patient for row in rows})
        write_rejected(out, modality, rejections, conceal)
        if table.empty:
            raise InputError(
                f"{source}: no usable {modality} case among {len(files)} files; see {out / 'rejected.csv'}"
            )
        given = {pseudonyms.patient(row.patient): row.fold for row in rows if row.fold is not None}
        write_manifests(out, modality, table, given, folds, seed)
    write_report(out)
    return IngestSummary(
        modality=modality,
        cases=len(table),
        patients=table["patient_id"].nunique(),
        labelled=int(table["label"].notna().sum()),
        obliterated=int(table["label"].eq(1).sum()),
        kept=sum(stored),
        rejected=len(rejections),
        ignored_columns=tuple(ignored),
        rejected_file=out / "rejected.csv",
    )


def _source_folder(source: Path, out: Path, modality: Modality) -> Path:
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the folder with the {modality} files")
    if not (source / "labels.csv").is_file() and (source / modality / "labels.csv").is_file():
        source = source / modality
    if out.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{out}: lies in the source folder {source}; choose an --out elsewhere")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; choose another --out")
    return source


def _check_sizes(**sizes: Sequence[float]) -> None:
    for name, values in sizes.items():
        if len(values) != 3 or not all(0 < value < math.inf for value in values):
            raise InputError(f"--{name} {' '.join(map(str, values))}: give three numbers above 0")


def _stop_if_strict(rejections: Iterable[Rejection], strict: bool) -> None:
    if strict and (first := next((rejection for rejection in rejections if rejection.defect), None)):
        detail = f" ({' '.join(first.detail.split())})" if first.detail else ""
        raise InputError(f"{first.source}: {first.reason}{detail}; correct it, or leave out --strict")


def _make(
    cases: Sequence[Case], stored: Sequence[bool], over: Map, strict: bool, progress: Progress | None
) -> list[Rejection | None]:
    """Makes the cases that are not stored; in their order, the rejection of each that could not be made."""
    made = iter(over(make_case, [case for case, kept in zip(cases, stored, strict=True) if not kept]))
    outcomes: list[Rejection | None] = []
    for kept in stored:
        outcome = None if kept else next(made)
        if outcome is not None:
            _stop_if_strict([outcome], strict)
        outcomes.append(outcome)
        if progress is not None:
            progress(len(outcomes), len(cases))
    return outcomes


def _table(cases: Sequence[Case], rows: Sequence[LabelRow]) -> pd.DataFrame:
    """The manifest without folds, sorted by case."""
    columns: dict[str, list[Any]] = {
        "case_id": [case.case_id for case in cases],
        "patient_id": [case.patient_id for case in cases],
        "path": [f"{case.target.parent.name}/{case.target.name}" for case in cases],
        "label": [case.match.label for case in cases],
    }
    for name in rows[0].covariates if rows else ():
        columns[name] = [case.match.covariates.get(name, math.nan) for case in cases]
    return pd.DataFrame(columns).sort_values("case_id", ignore_index=True)
