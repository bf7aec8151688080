"""Writes the lists of a cohort: what is in it, in which fold, and what was left out."""

import csv
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from data_modules.cohort import COLUMNS, MODALITIES, Modality, read_cases, read_manifest, write_manifest
from data_modules.dealing import check_dealing, deal, write_dealing
from data_modules.duplicates import COLUMNS as PAIR_COLUMNS
from data_modules.duplicates import find_duplicates, write_duplicates
from data_modules.files import replacing
from data_modules.ingest.images import Rejection
from data_modules.ingest.pseudonyms import Pseudonyms
from data_modules.store import read_record


def write_manifests(
    cohort: Path,
    modality: Modality,
    table: pd.DataFrame,
    given: Mapping[str, int],
    n_folds: int,
    seed: int,
    order: Mapping[str, str] | None = None,
    public_set: str = "",
    pseudonyms: Pseudonyms | None = None,
) -> int:
    """Writes a modality's manifest, deals the patients of both modalities into folds, and removes what is not listed.

    Patients keep the fold that they have, and those who share an image get the same (`assign_folds`). How the cohort
    was dealt is kept in ``folds.json``; pairs of cases of two patients that show the same image, by the descriptors in
    their records, are listed in ``duplicates.csv``. Cases of other sets than the table's stay as they are listed. A
    kill at any moment leaves what the next run turns into the same. A manifest that says what it said, of arrays that
    are no newer, keeps its time: whatever was trained on it is up to date.

    Args:
        cohort: The cohort folder.
        modality: That of the table.
        table: The manifest without folds, of one set.
        given: Fold by patient_id, from the label CSV.
        n_folds: K, at least 3.
        seed: Of the folds.
        order: By patient_id the text whose hash orders her, e.g. the hospital's id, which is not written.
        public_set: Name of the set; empty: the hospital's own files.
        pseudonyms: What the ids in the order became, to be known again in later ingests; None: they are not.

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
    tables[modality] = table = _beside_others(cohort, modality, public_set, table)
    pairs = pd.concat([_find_pairs(cohort, name, tables[name]) for name in MODALITIES if name in tables])
    csv_name = f"{modality}-{public_set}" if public_set else modality
    dealing, folds = deal(cohort, tables, csv_name, given, pairs, n_folds, seed, order or {})
    if pseudonyms:
        met = {pseudonyms.spelling(identifier): patient for patient, identifier in (order or {}).items()}
        dealing = replace(dealing, key_check=pseudonyms.key_check, spellings=dealing.spellings | met)
    # All that follows can be repeated from what is remembered, so it is remembered first.
    write_dealing(cohort, dealing)
    # Neither must stand beside the other manifest's new folds; what the own one lists of other sets is still needed.
    (cohort / "duplicates.csv").unlink(missing_ok=True)
    if (cohort / f"{modality}.csv").is_file():
        (cohort / f"{modality}.csv").replace(_before(cohort, modality))
    for other in sorted(tables, key=lambda name: name == modality):  # its own last: it says that all is done
        if other == modality:
            write_duplicates(cohort, pairs)
        ordered = tables[other].assign(fold=tables[other]["patient_id"].map(folds))
        covariates = [name for name in ordered.columns if name not in COLUMNS]
        _write(cohort, other, ordered[[*COLUMNS, *covariates]])
    _remove_unlisted(cohort / modality, set(table["case_id"]))
    for unfinished in cohort.glob(".*.[cj]s*.*"):  # .mri.csv.before; of killed runs: .mri.csv.<process>
        unfinished.unlink()
    return int(pairs["modality"].eq(modality).sum())


def _write(cohort: Path, modality: Modality, table: pd.DataFrame) -> None:
    """Writes a manifest, with the time of the earlier one where nothing differs."""
    file = cohort / f"{modality}.csv"
    earlier = file if file.is_file() else _before(cohort, modality)
    content, time = (earlier.read_bytes(), earlier.stat().st_mtime_ns) if earlier.is_file() else (b"", 0)
    write_manifest(cohort, modality, table)
    if file.read_bytes() == content and all((cohort / path).stat().st_mtime_ns <= time for path in table["path"]):
        os.utime(file, ns=(time, time))


def read_rows(cohort: Path, modality: Modality) -> pd.DataFrame:
    """Returns the cases that a modality's manifest lists, or listed before a kill, without their folds.

    Raises:
        InputError: The manifest is no CSV, lacks a column, or a label, fold or covariate is none.
    """
    for file in (cohort / f"{modality}.csv", _before(cohort, modality)):
        if file.is_file():
            return read_cases(file).drop(columns="fold")
    return pd.DataFrame(columns=list(COLUMNS[:4]))


def set_of(case_id: str) -> str:
    """Returns the name of the public set that a case is of; empty: the hospital's own files."""
    named = re.fullmatch(r"(?:mri|tvus)-(.+)-p[0-9a-f]+-\d+", case_id)
    return named[1] if named else ""


def _before(cohort: Path, modality: Modality) -> Path:
    return cohort / f".{modality}.csv.before"


def _beside_others(cohort: Path, modality: Modality, public_set: str, table: pd.DataFrame) -> pd.DataFrame:
    """The cases of a set and those that are listed of other sets, sorted."""
    listed = read_rows(cohort, modality)
    others = listed[[set_of(case) != public_set for case in listed["case_id"]]]
    if others.empty:
        return table
    return pd.concat([table, others]).sort_values("case_id", ignore_index=True)


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
    cohort: Path,
    modality: Modality,
    rejections: Iterable[Rejection],
    conceal: Callable[[str], str],
    label_csv: str,
    public_set: str = "",
) -> None:
    """Lists what was left out of a set in ``rejected.csv``, beside the others', with identifiers concealed.

    Concealed is what comes from the source: names of files and the texts of errors. Our own words hold no identifier,
    and short ones would be found in them.

    Args:
        cohort: The cohort folder.
        modality: That of the rejections.
        rejections: What was left out.
        conceal: Takes identifiers out of a text.
        label_csv: Name of the label CSV, whose rows are among what was left out.
        public_set: Name of the set; empty: the hospital's own files.
    """
    cohort.mkdir(parents=True, exist_ok=True)
    file = cohort / "rejected.csv"
    rows = [row for row in read_rejected(cohort) if (row["modality"], row.get("set", "")) != (modality, public_set)]
    # As `describe_row` and `describe_files` put it.
    ours = re.compile(rf"((?<=^{re.escape(label_csv)}) row \d+(?=: |$)| and \d+ more files$)")
    for rejection in sorted(rejections, key=lambda rejection: (rejection.source, rejection.reason)):
        detail = conceal(" ".join(rejection.detail.split()))
        reason = f"{rejection.reason} ({detail})" if detail else rejection.reason
        pieces = enumerate(ours.split(rejection.source))
        shown = "".join(piece if place % 2 else conceal(piece) for place, piece in pieces)
        rows.append({"modality": modality, "set": public_set, "source": shown, "reason": reason})
    with (
        replacing(file) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as handle,
    ):
        writer = csv.DictWriter(handle, ["modality", "set", "source", "reason"])
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (row["modality"], row.get("set", ""))))


def read_rejected(cohort: Path) -> list[dict[str, str]]:
    """Returns the rows of a cohort's ``rejected.csv``: modality, set, source and reason."""
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
