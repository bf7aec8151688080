"""The manifest of a cohort: one CSV a modality, its checks, and the folds by patient."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd

from data_modules.duplicates import check_together, read_duplicates
from data_modules.errors import InputError
from data_modules.files import replacing
from data_modules.tables import read_table, to_numbers

Modality = Literal["mri", "tvus"]
MODALITIES: tuple[Modality, ...] = ("mri", "tvus")
Stratum = tuple[tuple[str, float], ...]
COLUMNS = ("case_id", "patient_id", "path", "label", "fold")


def read_manifest(cohort: str | Path, modality: Modality) -> pd.DataFrame:
    """Reads and checks one modality's manifest.

    Args:
        cohort: The cohort folder.
        modality: ``"mri"`` or ``"tvus"``.

    Returns:
        A row a case: ``case_id``, ``patient_id`` and ``path`` (str, relative to the cohort), ``label`` (float: 1
        obliterated, 0 free, nan unlabelled), ``fold`` (Int64, missing for patients without any label), then numeric
        covariates.

    Raises:
        InputError: A file or column is missing, a case id occurs twice, a label or fold is none, a path leads out
            of the cohort or to no file, a patient is in two folds, in this manifest or across the two, or two patients
            with near-duplicate images are (``duplicates.csv``).
    """
    cohort = Path(cohort)
    file = cohort / f"{modality}.csv"
    if not file.is_file():
        raise InputError(f"{file}: no such file; make it with `poddistill ingest {modality} SRC --out {cohort}`")
    table = read_cases(file)
    if table.empty:
        raise InputError(f"{file}: holds no case; ingest the {modality} files again")
    for column in ("case_id", "patient_id", "path"):
        if (row := _first(table[column].eq(""))) is not None:
            raise InputError(f"{file}: row {row + 2} has no {column}; fill it in or remove the row")
    if (row := _first(table["case_id"].duplicated())) is not None:
        raise InputError(f"{file}: case_id {table['case_id'][row]} occurs twice; remove one of the rows")
    _check_paths(table["path"], cohort, file)
    if (row := _first(table["label"].notna() & table["fold"].isna())) is not None:
        raise InputError(f"{file}: case {table['case_id'][row]} has a label but no fold; ingest the cohort again")
    _check_leaks(table, cohort, file)
    return table


def read_cases(file: Path) -> pd.DataFrame:
    """Reads the table of a manifest as `read_manifest` does, without holding it against the rest of the cohort.

    Raises:
        InputError: It is no CSV, lacks a column, or a label, fold or covariate is none.
    """
    table = read_table(file, COLUMNS)
    table["label"] = to_numbers(table["label"], file, "label", "0, 1 or empty")
    if (row := _first(table["label"].notna() & ~table["label"].isin([0, 1]))) is not None:
        raise InputError(f"{file}: row {row + 2} has label {table['label'][row]:g}; use 0, 1 or leave it empty")
    table["fold"] = _folds(table["fold"], file)
    for column in table.columns[len(COLUMNS) :]:
        table[column] = to_numbers(table[column], file, column, "a number or empty: a covariate is numeric")
    return table


def write_manifest(cohort: Path, modality: Modality, manifest: pd.DataFrame) -> None:
    """Writes ``<modality>.csv`` in one step: a reader sees the old file or the new one, never a part."""
    table = manifest.copy()
    table["label"] = table["label"].astype("Int64")
    table["fold"] = table["fold"].astype("Int64")
    file = cohort / f"{modality}.csv"
    with replacing(file) as temporary:
        table.to_csv(temporary, index=False)


def read_folds(cohort: str | Path, modality: Modality) -> dict[str, int]:
    """Returns the fold by patient_id of one manifest, without those that have none; empty without the manifest.

    Raises:
        InputError: The file cannot be read, or a patient is in two folds.
    """
    file = Path(cohort) / f"{modality}.csv"
    if not file.is_file():
        return {}
    table = read_table(file, COLUMNS)
    folds = _folds(table["fold"], file)
    check_one_fold(table["patient_id"], folds, str(file))
    return {patient: int(fold) for patient, fold in zip(table["patient_id"], folds, strict=True) if not pd.isna(fold)}


def count_folds(cohort: str | Path) -> int:
    """Returns K, the number of folds: one more than the highest fold of either manifest; 0 where nobody has a label.

    Raises:
        InputError: There are one or two folds, so that none is left to train on.
    """
    cohort = Path(cohort)
    folds = [_folds(read_table(file, COLUMNS)["fold"], file) for file in _manifest_files(cohort)]
    highest = max((fold.max() for fold in folds if fold.notna().any()), default=-1)
    if highest in (0, 1):
        raise InputError(
            f"{cohort}: has {int(highest) + 1} folds; test, validation and training need at least 3, ingest again"
        )
    return int(highest) + 1


def splits(manifest: pd.DataFrame, fold: int | None, n_folds: int) -> pd.Series:
    """Returns each case's part when ``fold`` is tested: ``"test"``, ``"val"``, ``"train"`` or ``""``.

    Test is fold j, validation fold (j + 1) mod K, training the rest; ``""`` marks patients without a fold, who have no
    label and can only lend images to training: all of them where K is 0. Without a test fold, for models that
    were trained on another cohort, every patient with a fold is in the test.

    Raises:
        InputError: There is no such fold.
    """
    if fold is None:
        return manifest["fold"].notna().map({True: "test", False: ""}).rename("split").astype(str)
    if n_folds and not 0 <= fold < n_folds:
        raise InputError(f"fold {fold}: the cohort has folds 0 to {n_folds - 1}; choose one of them")
    folds = manifest["fold"].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    part = np.select(
        [np.isnan(folds), folds == fold, folds == (fold + 1) % max(n_folds, 1)], ["", "test", "val"], default="train"
    )
    return pd.Series(part, index=manifest.index, name="split", dtype=str)


def assign_folds(
    manifests: Mapping[Modality, pd.DataFrame],
    n_folds: int = 5,
    seed: int = 0,
    existing: Mapping[str, int] | pd.Series | None = None,
    groups: Mapping[str, str] | None = None,
    order: Mapping[str, str] | None = None,
) -> pd.Series:
    """Deals the patients of both modalities into folds, stratified by label and modality; nobody moves who has one.

    A stratum holds the patients with the same labels in the same modalities. New patients are dealt stratum after
    stratum in the order of a hash of seed and patient, each to the fold that has the fewest of her stratum, of equals
    the one with the fewest patients. With nothing existing, folds so differ by at most one patient, in each stratum
    and in all. The result depends on patients, labels, seed and what exists alone, never on row order.

    Patients of a group share images and get one fold, also those of them without a label: images of nobody's fold
    are lent to the training of every fold. Groups are dealt before single patients, who then level the folds. Where
    members have different folds already, a leak would outlive the runs trained so far, so the group goes to the fold
    of most labelled ones, of equals to that of the first in the order.

    Args:
        manifests: Tables with the columns ``patient_id`` and ``label`` (float, nan = unlabelled), by modality.
        n_folds: K, at least 3.
        seed: Gives another assignment.
        existing: Fold by patient_id, to be kept; missing ones are as good as none.
        groups: Name of the group by patient_id; patients that it leaves out are single.
        order: Text by patient_id whose hash orders her instead of her patient_id, so that the folds do not depend on
            the pseudonyms.

    Returns:
        Int64 fold by patient id; missing for patients without any label, unless of a group with one.

    Raises:
        InputError: K is below 3.
    """
    check_fold_count(n_folds)
    kept = {} if existing is None else {patient: int(fold) for patient, fold in existing.items() if not pd.isna(fold)}
    strata = _strata(manifests)
    turn = {patient: hash_order(seed, (order or {}).get(patient, patient)) for patient in strata}
    units: dict[str, list[str]] = {}
    for patient in sorted(strata, key=turn.__getitem__):
        units.setdefault((groups or {}).get(patient, patient), []).append(patient)

    def rank(members: list[str]) -> tuple:
        settled = any(member in kept for member in members)
        return not settled, -len(members), sorted(strata[member] for member in members), turn[members[0]]

    folds: dict[str, int] = {}
    of_stratum, of_all = Counter[tuple[Stratum, int]](), Counter[int]()
    for members in sorted(units.values(), key=rank):
        if not any(strata[member] for member in members):
            continue
        present = [member for member in members if member in kept]
        if present:  # a fold that was kept for an unlabelled patient moves no labelled one
            voters = [member for member in present if strata[member]] or present
            fold = Counter(kept[member] for member in voters).most_common(1)[0][0]
        else:
            in_stratum = [sum(of_stratum[strata[member], fold] for member in members) for fold in range(n_folds)]
            fold = min((n, of_all[fold], fold) for fold, n in enumerate(in_stratum))[-1]
        folds |= dict.fromkeys(members, fold)
        of_stratum.update((strata[member], fold) for member in members)
        of_all[fold] += len(members)
    index = pd.Index(sorted(strata), name="patient_id")
    return pd.Series([folds.get(patient, pd.NA) for patient in index], index=index, dtype="Int64", name="fold")


def _strata(manifests: Mapping[Modality, pd.DataFrame]) -> dict[str, Stratum]:
    """Each patient's labels with their modalities; empty without any label."""
    labels: dict[str, set[tuple[str, float]]] = {}
    for modality in MODALITIES:
        if modality in manifests:
            table = manifests[modality]
            for patient, label in zip(table["patient_id"], table["label"], strict=True):
                of_patient = labels.setdefault(str(patient), set())
                if not np.isnan(label):
                    of_patient.add((modality, float(label)))
    return {patient: tuple(sorted(of_patient)) for patient, of_patient in labels.items()}


def check_fold_count(n_folds: int) -> None:
    """Checks that there is a fold each for test, validation and training.

    Raises:
        InputError: There are less than three.
    """
    if n_folds < 3:
        raise InputError(f"folds {n_folds}: test, validation and training need at least 3; raise it")


def hash_order(seed: int, name: str) -> str:
    """Returns a key to sort names in a random order that depends on the seed and on each name alone."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def check_one_fold(patients: pd.Series, folds: pd.Series, where: str) -> None:
    """Checks that all cases of a patient are in one fold.

    Raises:
        InputError: A patient is in two folds; it names the patient.
    """
    distinct = pd.DataFrame({"patient": patients, "fold": folds}).drop_duplicates()
    if (row := _first(distinct["patient"].duplicated().reset_index(drop=True))) is not None:
        patient = distinct["patient"].iloc[row]
        found = " and ".join(
            "none" if pd.isna(fold) else str(fold) for fold in distinct["fold"][distinct["patient"] == patient]
        )
        raise InputError(f"{where}: patient {patient} is in folds {found}; give all cases of a patient the same fold")


def _folds(column: pd.Series, file: Path) -> pd.Series:
    numbers = to_numbers(column, file, "fold", "0, 1, 2, ... or leave it empty")
    if (row := _first(numbers.notna() & ((numbers < 0) | (numbers % 1 != 0)))) is not None:
        raise InputError(f"{file}: row {row + 2} has fold {column[row]}; use 0, 1, 2, ... or leave it empty")
    return numbers.astype("Int64")


def _check_paths(paths: pd.Series, cohort: Path, file: Path) -> None:
    for row, path in enumerate(paths):
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\\" in path:
            raise InputError(
                f"{file}: row {row + 2} has path {path}, which leads out of the cohort; ingest the cohort again"
            )
        if not (cohort / pure).is_file():
            raise InputError(f"{file}: row {row + 2} names {path}, which is not there; ingest the cohort again")


def _check_leaks(table: pd.DataFrame, cohort: Path, file: Path) -> None:
    tables = {other: read_table(other, COLUMNS) for other in _manifest_files(cohort) if other != file}
    patients = pd.concat([table["patient_id"], *(other["patient_id"] for other in tables.values())], ignore_index=True)
    folds = pd.concat(
        [table["fold"], *(_folds(other["fold"], name) for name, other in tables.items())], ignore_index=True
    )
    where = " and ".join(str(name) for name in (file, *tables))
    check_one_fold(patients, folds, where)
    check_together(read_duplicates(cohort), dict(zip(patients, folds, strict=True)), where)


def _manifest_files(cohort: Path) -> list[Path]:
    return [file for modality in MODALITIES if (file := cohort / f"{modality}.csv").is_file()]


def _first(wrong: pd.Series) -> int | None:
    return int(wrong.to_numpy().argmax()) if wrong.any() else None
