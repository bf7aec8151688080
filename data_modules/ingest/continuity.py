"""What an ingest leaves as it is in a cohort that is there already: its cases, their numbers and how they are made."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from data_modules.cohort import Modality
from data_modules.errors import InputError
from data_modules.ingest.manifests import read_rows, set_of
from data_modules.store import read_record

# Of a record: by which files and parameters it was made, where they lie, from which DICOM series it is. A place counts
# with its series alone, for in the next export another may lie there.
MARKS = ("fingerprint", "place", "series")
SIZE = ("shape", "spacing")  # that all sets of a modality share, for training puts their cases into one batch


def settle(
    out: Path, modality: Modality, public_set: str, given: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a reader's parameters, those not given as the cohort's cases were made: what is ingested again stays.

    Args:
        out: The cohort folder.
        modality: That of the source.
        public_set: Name of the set; empty: the hospital's own files. Of other sets' cases only the size counts.
        given: The parameters, None where not given.
        defaults: What they are where the cohort has no such case yet.
    """
    listed = read_rows(out, modality)
    made = dict(defaults)
    for own in (False, True):
        for case, path in zip(listed["case_id"], listed["path"], strict=True):
            if (set_of(case) == public_set) is own:
                parameters = (read_record(out / path) or {}).get("parameters", {})
                made |= {name: value for name, value in parameters.items() if own or name in SIZE}
                break
    chosen = {name: made[name] if value is None else value for name, value in given.items()}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}


def check_stored_shape(out: Path, modality: Modality, public_set: str, parameters: Mapping[str, Any]) -> None:
    """Checks that other sets' cases have the shape and spacing asked for: training puts all cases into one batch.

    Raises:
        InputError: They have others.
    """
    listed = read_rows(out, modality)
    for case, path in zip(listed["case_id"], listed["path"], strict=True):
        if set_of(case) != public_set:
            stored = (read_record(out / path) or {}).get("stored", {})
            for option in SIZE:
                if option in stored and option in parameters and tuple(stored[option]) != tuple(parameters[option]):
                    used, asked = (" ".join(f"{n:g}" for n in part[option]) for part in (stored, parameters))
                    raise InputError(f"--{option} {asked}: {out} holds cases of {used}; give the same")
            return


def check_no_label_lost(out: Path, modality: Modality, public_set: str, label_file: Path) -> None:
    """Checks, where no row of labels is given, that the set's listed cases have neither labels nor covariates.

    Raises:
        InputError: They have, and would lose them.
    """
    listed = read_rows(out, modality)
    own = listed[listed["case_id"].map(set_of).eq(public_set)]
    if own.drop(columns=["case_id", "patient_id", "path"]).notna().any(axis=None):
        raise InputError(
            f"{label_file}: gives no labels, and the {modality} cases of {out} would lose theirs; give the label CSV "
            "again with --labels, or one of the same patients without labels to remove them"
        )


def check_nothing_lacks(
    source: Path,
    out: Path,
    modality: Modality,
    public_set: str,
    planned: Iterable[Mapping[str, Any]],
    series: Iterable[str],
) -> None:
    """Checks that the source has all of the set's cases that the cohort lists, which would be removed otherwise.

    Args:
        source: The source folder, for the message.
        out: The cohort folder.
        modality: That of the source.
        public_set: Name of the set; empty: the hospital's own files.
        planned: What is known beforehand of the records of the cases to make.
        series: Marks of all DICOM series that were found, used or not.

    Raises:
        InputError: It lacks some: they are not to be made, and neither their files nor their series are in the source.
    """
    planned = list(planned)
    cases = {record["case_id"] for record in planned}
    marks = {record[mark] for record in planned for mark in MARKS if mark in record} | set(series)
    rows = read_rows(out, modality)
    listed = [row for row in zip(rows["case_id"], rows["path"], strict=True) if set_of(row[0]) == public_set]
    unplanned = [read_record(out / path) or {} for case, path in listed if case not in cases]
    if lacking := [record for record in unplanned if not marks & {record.get(mark) for mark in MARKS}]:
        raise InputError(
            f"{source}: lacks {len(lacking)} of the {len(listed)} {modality} cases that {out} lists, or they are "
            "damaged or left out by the labels; SRC must hold everything of a modality: complete it, choose another "
            "--out, or give --remove_missing to remove them"
        )


def number_cases(folder: Path, images: Sequence[tuple[str, Mapping[str, Any]]]) -> list[int]:
    """Numbers images: as the stored case of the same files, place or series is, others with the lowest that are free.

    Args:
        folder: Of the stored cases, or one that is not there.
        images: For each the first part of its case's id, within which numbers are unique, and its record.
    """
    stored: dict[tuple[str, str, str], int] = {}
    for file in sorted(folder.glob("*.npy")):
        before, _, last = file.stem.rpartition("-")
        found = read_record(file) or {}
        stored |= {(before, mark, found[mark]): int(last) for mark in MARKS if mark in found}
    numbers: dict[int, int] = {}
    taken: set[tuple[str, int]] = set()
    for mark in MARKS:
        for position, (stem, record) in enumerate(images):
            number = stored.get((stem, mark, record.get(mark, "")))
            if number is not None and position not in numbers and (stem, number) not in taken:
                numbers[position] = number
                taken.add((stem, number))
    for position, (stem, _) in enumerate(images):
        if position not in numbers:
            numbers[position] = next(number for number in count(1) if (stem, number) not in taken)
            taken.add((stem, numbers[position]))
    return [numbers[position] for position in range(len(images))]
