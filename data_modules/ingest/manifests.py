"""Writes the lists of a cohort: what is in it, in which fold, and what was left out."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from data_modules.cohort import (
    COLUMNS,
    MODALITIES,
    Modality,
    assign_folds,
    check_one_fold,
    read_manifest,
    write_manifest,
)
from data_modules.ingest.images import Rejection


def write_manifests(
    cohort: Path, modality: Modality, table: pd.DataFrame, given: Mapping[str, int], n_folds: int, seed: int
) -> None:
    """Writes a modality's manifest, deals the patients of both modalities into folds, and removes what is not listed.

    Folds that a hospital's label CSV gave are kept in ``given_folds.json``, so that the other modality follows them.

    Args:
        cohort: The cohort folder.
        modality: That of the table.
        table: The manifest without folds.
        given: Fold by patient_id, from the label CSV.
        n_folds: K, at least 3.
        seed: Of the folds.

    Raises:
        InputError: K is below 3, or the label CSVs of the two modalities give a patient different folds.
    """
    tables = {
        other: read_manifest(cohort, other) for other in MODALITIES if other != modality and _exists(cohort, other)
    }
    tables[modality] = table
    all_given = {**_read_given(cohort), modality: dict(given)}
    pairs = [(patient, fold) for folds in all_given.values() for patient, fold in folds.items()]
    check_one_fold(
        pd.Series([p for p, _ in pairs], dtype=str), pd.Series([f for _, f in pairs]), "label CSVs of both modalities"
    )
    folds = assign_folds(tables, n_folds, seed)
    for patient, fold in pairs:
        if patient in folds.index:
            folds[patient] = fold
    _write_given(cohort, all_given)
    (cohort / f"{modality}.csv").unlink(missing_ok=True)  # its old folds must not stand beside the other's new ones
    for other in sorted(tables, key=lambda name: name == modality):  # its own last: it says that all is done
        ordered = tables[other].assign(fold=tables[other]["patient_id"].map(folds))
        covariates = [name for name in ordered.columns if name not in COLUMNS]
        write_manifest(cohort, other, ordered[[*COLUMNS, *covariates]])
    _remove_unlisted(cohort / modality, set(table["case_id"]))


def write_rejected(
    cohort: Path, modality: Modality, rejections: Iterable[Rejection], conceal: Callable[[str], str]
) -> None:
    """Lists what was left out of a modality in ``rejected.csv``, beside the other's, with identifiers concealed."""
    cohort.mkdir(parents=True, exist_ok=True)
    file = cohort / "rejected.csv"
    rows = [row for row in read_rejected(cohort) if row["modality"] != modality]
    for rejection in sorted(rejections, key=lambda rejection: (rejection.source, rejection.reason)):
        detail = f" ({conceal(' '.join(rejection.detail.split()))})" if rejection.detail else ""
        rows.append({"modality": modality, "source": conceal(rejection.source), "reason": rejection.reason + detail})
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, ["modality", "source", "reason"])
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["modality"]))
    temporary.replace(file)


def read_rejected(cohort: Path) -> list[dict[str, str]]:
    """Returns the rows of a cohort's ``rejected.csv``: modality, source and reason."""
    file = cohort / "rejected.csv"
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def _exists(cohort: Path, modality: Modality) -> bool:
    return (cohort / f"{modality}.csv").is_file()


def _read_given(cohort: Path) -> dict[str, dict[str, int]]:
    file = cohort / "given_folds.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def _write_given(cohort: Path, given: Mapping[str, Mapping[str, int]]) -> None:
    file = cohort / "given_folds.json"
    if not any(given.values()):
        file.unlink(missing_ok=True)
        return
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(given, indent=1, sort_keys=True))
    temporary.replace(file)


def _remove_unlisted(folder: Path, case_ids: set[str]) -> None:
    """Removes arrays and records of earlier runs' cases that are no longer in the source, and unfinished files."""
    for file in folder.iterdir():
        if (file.suffix in {".npy", ".json"} and file.stem not in case_ids) or file.name.startswith("."):
            file.unlink()
