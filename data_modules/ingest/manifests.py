"""Writes the lists of a cohort: what is in it, in which fold, and what was left out."""

import csv
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from data_modules.cohort import COLUMNS, MODALITIES, Modality, read_manifest, write_manifest
from data_modules.dealing import check_dealing, deal, write_dealing
from data_modules.duplicates import COLUMNS as PAIR_COLUMNS
from data_modules.duplicates import find_duplicates, write_duplicates
from data_modules.ingest.images import Rejection
from data_modules.store import read_record


def write_manifests(
    cohort: Path,
    modality: Modality,
    table: pd.DataFrame,
    given: Mapping[str, int],
    n_folds: int,
    seed: int,
    order: Mapping[str, str] | None = None,
) -> int:
    """Writes a modality's manifest, deals the patients of both modalities into folds, and removes what is not listed.

    Patients keep the fold that they have, and those who share an image get the same (`assign_folds`). How the cohort
    was dealt is kept in ``folds.json``; pairs of cases of two patients that show the same image, by the descriptors in
    their records, are listed in ``duplicates.csv``. A kill at any moment leaves what the next run turns into the same.

    Args:
        cohort: The cohort folder.
        modality: That of the table.
        table: The manifest without folds.
        given: Fold by patient_id, from the label CSV.
        n_folds: K, at least 3.
        seed: Of the folds.
        order: By patient_id the text whose hash orders her, e.g. the hospital's id, which is not written.

    Returns:
        How many pairs of cases of this modality, of two patients, show the same image.

    Raises:
        InputError: K is below 3, K or seed are not those with which the cohort was dealt, the other manifest is wrong,
            or the label CSVs give a patient, or two patients who share an image, different folds.
    """
    check_dealing(cohort, n_folds, seed)
    tables = {
        other: read_manifest(cohort, other)
        for other in MODALITIES
        if other != modality and (cohort / f"{other}.csv").is_file()
    }
    tables[modality] = table
    pairs = pd.concat([_find_pairs(cohort, name, tables[name]) for name in MODALITIES if name in tables])
    dealing, folds = deal(cohort, tables, modality, given, pairs, n_folds, seed, order or {})
    # All that follows can be repeated from what is remembered, so it is remembered first.
    write_dealing(cohort, dealing)
    for stale in (f"{modality}.csv", "duplicates.csv"):  # must not stand beside the other manifest's new folds
        (cohort / stale).unlink(missing_ok=True)
    for other in sorted(tables, key=lambda name: name == modality):  # its own last: it says that all is done
        if other == modality:
            write_duplicates(cohort, pairs)
        ordered = tables[other].assign(fold=tables[other]["patient_id"].map(folds))
        covariates = [name for name in ordered.columns if name not in COLUMNS]
        write_manifest(cohort, other, ordered[[*COLUMNS, *covariates]])
    _remove_unlisted(cohort / modality, set(table["case_id"]))
    for unfinished in cohort.glob(".*.[cj]s*.*"):  # of killed runs: .mri.csv.<process>, .folds.json.<process>
        unfinished.unlink()
    return int(pairs["modality"].eq(modality).sum())


def _find_pairs(cohort: Path, modality: Modality, table: pd.DataFrame) -> pd.DataFrame:
    """Near duplicates among the cases whose record has a descriptor."""
    found = [str((read_record(cohort / path) or {}).get("descriptor", "")) for path in table["path"]]
    described = table[[bool(descriptor) for descriptor in found]]
    cases, patients = described["case_id"].tolist(), described["patient_id"].tolist()
    rows = []
    for pair in find_duplicates(list(filter(None, found)), patients):
        first, second = ((cases[position], patients[position]) for position in (pair.first, pair.second))
        rows.append((modality, *first, *second, round(pair.similarity, 4)))
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))


def write_rejected(
    cohort: Path, modality: Modality, rejections: Iterable[Rejection], conceal: Callable[[str], str]
) -> None:
    """Lists what was left out of a modality in ``rejected.csv``, beside the other's, with identifiers concealed."""
    cohort.mkdir(parents=True, exist_ok=True)
    file = cohort / "rejected.csv"
    rows = [row for row in read_rejected(cohort) if row["modality"] != modality]
    for rejection in sorted(rejections, key=lambda rejection: (rejection.source, rejection.reason)):
        reason = f"{rejection.reason} ({' '.join(rejection.detail.split())})" if rejection.detail else rejection.reason
        rows.append({"modality": modality, "source": conceal(rejection.source), "reason": conceal(reason)})
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as handle:
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


def _remove_unlisted(folder: Path, case_ids: set[str]) -> None:
    """Removes arrays and records of earlier runs' cases that are no longer in the source, and unfinished files."""
    for file in folder.iterdir():
        if (file.suffix in {".npy", ".json"} and file.stem not in case_ids) or file.name.startswith("."):
            file.unlink()
