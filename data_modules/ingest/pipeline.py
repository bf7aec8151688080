"""From a hospital's folder to a cohort, start to finish."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypedDict, Unpack

import pandas as pd

from data_modules.cohort import MODALITIES, Modality, check_fold_count
from data_modules.dealing import check_dealing
from data_modules.errors import InputError
from data_modules.ingest.cases import Case, is_stored, make_case, plan_cases, series_mark
from data_modules.ingest.cluster import open_cluster
from data_modules.ingest.concealing import identities_of_rows
from data_modules.ingest.continuity import check_no_label_lost, check_nothing_lacks, check_stored_shape, settle
from data_modules.ingest.discovery import find_mri, find_tvus, identities_of, list_files
from data_modules.ingest.images import Rejection, SourceImage
from data_modules.ingest.labels import Labels, check_given_folds, read_labels
from data_modules.ingest.layouts import open_layout
from data_modules.ingest.manifests import write_manifests, write_rejected
from data_modules.ingest.matching import Matching
from data_modules.ingest.pseudonyms import open_key
from data_modules.ingest.rules import read_rules
from data_modules.ingest.sources import check_sources_file, write_sources
from data_modules.ingest.spellings import check_spellings
from data_modules.ingest.summary import IngestSummary
from data_modules.ingest.workers import Limits, Lost, Map, count_workers, open_workers
from data_modules.inspection import write_report

DEFAULTS: Mapping[Modality, Mapping[str, Any]] = {
    "mri": {"shape": (16, 48, 48), "spacing": (4.0, 2.0, 2.0), "n4": False},
    "tvus": {"shape": (16, 64, 64), "frame_rate": 5.0},
}
FILES_A_WORKER = 16  # fewer are not worth starting a process
Progress = Callable[[int, int], None]
Found = tuple[list[SourceImage], list[Rejection], dict[str, str]]


class IngestOptions(TypedDict, total=False):
    """What both modalities' ingests take.

    Attributes:
        labels: Label CSV; by default ``src/labels.csv``, and if that is missing all cases are unlabelled.
        folds: Number of folds K, at least 3 (5). A cohort keeps the number and the seed of its first ingest.
        seed: Of the folds (0).
        workers: Processes; 0: one a core (0).
        scheduler: Address of a Dask scheduler over whose workers the files are read, instead of processes here.
        time_limit: Seconds that a file may take (300).
        memory_limit: GiB that a process may take (8).
        sources: A private file that lists which file became which case, under the hospital's own names (None).
        strict: Stop at the first defect instead of listing it in rejected.csv (False).
        remove_missing: Remove cases of the cohort that the source does not hold any more, instead of refusing (False).
        progress: Told how many cases of how many are done.
    """

    labels: str | Path | None
    folds: int
    seed: int
    workers: int
    scheduler: str | None
    time_limit: float
    memory_limit: float
    sources: str | Path | None
    strict: bool
    remove_missing: bool
    progress: Progress | None


def ingest_mri(
    src: str | Path,
    out: str | Path,
    shape: tuple[int, int, int] | None = None,
    spacing: tuple[float, float, float] | None = None,
    n4: bool | None = None,
    layout: str | None = None,
    series_rules: str | Path | None = None,
    **options: Unpack[IngestOptions],
) -> IngestSummary:
    """Turns DICOM and NIfTI volumes into the MRI of a cohort.

    Started again after a kill it goes on where it stopped. Patients' pseudonyms come from the key in ``<out>.key``,
    which is made on first use: keep it, for the patients of the other modality need the same one, and keep it secret.
    What is left out of ``shape``, ``spacing`` and ``n4`` is as in the cohort's cases, where it has some.

    Args:
        src: Folder of files, with ``labels.csv``; or the folder above ``mri``.
        out: The cohort folder.
        shape: Stored voxels (D, H, W), first (16, 48, 48).
        spacing: Stored voxel size along D, H and W, mm; first (4, 2, 2).
        n4: Whether to correct the bias field (N4) beforehand, first False.
        layout: Name of a public set whose folders and quirks are known, e.g. ``"umd"``; None: any tree. Its cases stand
            beside the hospital's and those of other sets.
        series_rules: YAML file with rules that choose the series of a study; None: the shipped ones.
        options: See `IngestOptions`.

    Raises:
        InputError: A folder, the label CSV or an option is wrong, no case is left, the source lacks cases that the
            cohort lists, or, if ``strict``, a file is defective.
    """
    _check_sizes(shape=shape, spacing=spacing)
    if layout and series_rules:
        raise InputError("--series_rules: the layout says which series is used; leave one of the two out")
    find_in_layout = open_layout(layout) if layout else None
    rules = read_rules(Path(series_rules) if series_rules else None)

    def find(source: Path, files: Sequence[str], over: Map) -> Found:
        if find_in_layout is None:
            return find_mri(source, files, over, rules)
        images, rejections = find_in_layout(source, files, over)
        return images, rejections, identities_of((), images)

    given = {"shape": shape, "spacing": spacing, "n4": n4}
    return _ingest("mri", Path(src), Path(out), find, given, public_set=layout or "", **options)


def ingest_tvus(
    src: str | Path,
    out: str | Path,
    shape: tuple[int, int, int] | None = None,
    frame_rate: float | None = None,
    **options: Unpack[IngestOptions],
) -> IngestSummary:
    """Turns videos, folders of frames and multi-frame DICOM ultrasound into the clips of a cohort, as `ingest_mri`.

    Args:
        src: Folder of files, with ``labels.csv``; or the folder above ``tvus``.
        out: The cohort folder.
        shape: Stored frames and pixels (T, H, W), first (16, 64, 64).
        frame_rate: Stored frames a second, of the middle of a clip, first 5; 0: T frames spread over the whole clip.
        options: See `IngestOptions`.

    Raises:
        InputError: As `ingest_mri`.
    """
    _check_sizes(shape=shape)
    if frame_rate is not None and not 0 <= frame_rate < math.inf:
        raise InputError(f"--frame_rate {frame_rate}: give frames a second, or 0 to spread them over the whole clip")
    return _ingest("tvus", Path(src), Path(out), find_tvus, {"shape": shape, "frame_rate": frame_rate}, **options)


def _ingest(
    modality: Modality,
    source: Path,
    out: Path,
    find: Callable[[Path, Sequence[str], Map], Found],
    given: Mapping[str, Any],
    public_set: str = "",
    labels: str | Path | None = None,
    folds: int = 5,
    seed: int = 0,
    workers: int = 0,
    scheduler: str | None = None,
    time_limit: float = Limits.seconds,
    memory_limit: float = Limits.gib,
    sources: str | Path | None = None,
    strict: bool = False,
    remove_missing: bool = False,
    progress: Progress | None = None,
) -> IngestSummary:
    check_fold_count(folds)
    out = _named(out)
    if sources:
        check_sources_file(Path(sources), out)
    limits = _limits(time_limit, memory_limit)
    source = _source_folder(source, out, modality)
    label_file = Path(labels) if labels else source / "labels.csv"
    table = read_labels(label_file) if labels or label_file.is_file() else Labels()
    check_given_folds(table.rows, label_file, folds)
    check_dealing(out, folds, seed)
    parameters = settle(out, modality, public_set, given, DEFAULTS[modality])
    check_stored_shape(out, modality, public_set, parameters)
    if not table.rows:
        check_no_label_lost(out, modality, public_set, label_file)
    files, rejections = list_files(source, without=label_file)
    root, target = source.resolve(), out.resolve()
    with (
        open_key(out, public_set) as pseudonyms,
        _open_map(scheduler, workers, len(files), limits, (root, target)) as over,
    ):
        images, unfit, identities = find(root, files, over)
        matching = Matching(root, label_file, images, table.rows, one_a_study=modality == "mri")
        patients = [*(match.patient for match in matching.matched), *(row.patient for row in table.rows)]
        check_spellings(out, label_file if table.rows else source, patients, pseudonyms)
        rejections += [*table.rejections, *unfit, *matching.rejections]
        _stop_if_strict(rejections, strict)
        cases = plan_cases(modality, root, target, matching.matched, parameters, pseudonyms, public_set)
        if not remove_missing:
            series = [series_mark(pseudonyms, image.series) for image in images if image.series]
            check_nothing_lacks(source, out, modality, public_set, [case.record for case in cases], series)
        stored = [is_stored(case) for case in cases]
        outcomes = _make(cases, stored, over, strict, progress)
        rejections += [outcome for outcome in outcomes if outcome is not None]
        made = [case for case, outcome in zip(cases, outcomes, strict=True) if outcome is None]
        manifest = _manifest(made, table)
        conceal = pseudonyms.concealer(identities | identities_of_rows(table.rows))
        write_rejected(out, modality, rejections, conceal, label_file.name, public_set)
        if sources:
            write_sources(Path(sources), made, rejections)
        if manifest.empty:
            raise InputError(
                f"{source}: no usable {modality} case among {len(files)} files; see {out / 'rejected.csv'}"
            )
        given = {pseudonyms.patient(row.patient): row.fold for row in table.rows if row.fold is not None}
        order = {case.patient_id: case.match.patient for case in cases}
        duplicates = write_manifests(out, modality, manifest, given, folds, seed, order, public_set, pseudonyms)
    write_report(out)
    defects = [rejection for rejection in rejections if rejection.defect]
    return IngestSummary(
        modality=modality,
        cases=len(manifest),
        patients=manifest["patient_id"].nunique(),
        labelled=int(manifest["label"].notna().sum()),
        obliterated=int(manifest["label"].eq(1).sum()),
        kept=sum(stored),
        rejected=len(rejections),
        defects=len(defects),
        reasons=dict(Counter(rejection.reason for rejection in defects).most_common()),
        account=dict(matching.account.most_common()),
        duplicates=duplicates,
        ignored_columns=tuple(table.ignored),
        rejected_file=out / "rejected.csv",
    )


def _limits(seconds: float, gib: float) -> Limits:
    if not 0 < seconds < math.inf:
        raise InputError(f"--time_limit {seconds}: give the seconds that a file may take")
    if not 1 <= gib < math.inf:
        raise InputError(f"--memory_limit {gib}: give at least 1 GiB, which the libraries themselves need")
    return Limits(seconds, gib)


def _open_map(
    scheduler: str | None, workers: int, n_files: int, limits: Limits, folders: tuple[Path, Path]
) -> AbstractContextManager[Map]:
    if scheduler is None:
        return open_workers(count_workers(workers, n_files, FILES_A_WORKER), limits)
    source, out = folders
    out.mkdir(parents=True, exist_ok=True)
    return open_cluster(scheduler, (source, out), limits)


def _named(out: Path) -> Path:
    """The cohort folder by its name, after which the key is named, where it is given as ``.`` or ``..``."""
    out = out.resolve() if out.name in ("", "..") else out
    if not out.name:
        raise InputError(f"--out {out}: is no folder for a cohort; choose another")
    return out


def _source_folder(source: Path, out: Path, modality: Modality) -> Path:
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the folder with the {modality} files")
    if not (source / "labels.csv").is_file() and (source / modality / "labels.csv").is_file():
        source = source / modality
    if out.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{out}: lies in the source folder {source}; choose an --out elsewhere")
    if any(source.resolve().is_relative_to(out.resolve() / name) for name in MODALITIES):
        raise InputError(f"{source}: lies where the cohort {out} keeps its arrays; choose another --out")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; choose another --out")
    return source


def _check_sizes(**sizes: Sequence[float] | None) -> None:
    for name, values in sizes.items():
        if values is not None and (len(values) != 3 or not all(0 < value < math.inf for value in values)):
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
    for case, kept in zip(cases, stored, strict=True):
        outcome = None if kept else next(made)
        if isinstance(outcome, Lost):
            outcome = Rejection(case.match.image.source, outcome.reason)
        if outcome is not None:
            _stop_if_strict([outcome], strict)
        outcomes.append(outcome)
        if progress is not None:
            progress(len(outcomes), len(cases))
    return outcomes


def _manifest(cases: Sequence[Case], labels: Labels) -> pd.DataFrame:
    """The manifest without folds, sorted by case."""
    columns: dict[str, list[Any]] = {
        "case_id": [case.case_id for case in cases],
        "patient_id": [case.patient_id for case in cases],
        "path": [f"{case.target.parent.name}/{case.target.name}" for case in cases],
        "label": [case.match.label for case in cases],
    }
    for name in labels.rows[0].covariates if labels.rows else ():
        columns[name] = [case.match.covariates.get(name, math.nan) for case in cases]
    return pd.DataFrame(columns).sort_values("case_id", ignore_index=True)
