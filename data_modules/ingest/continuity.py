"""What an ingest leaves as it is in a cohort that is there already: the numbers of its cases."""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from data_modules.store import read_record

MARKS = ("fingerprint", "series")  # of a record: by which files and parameters it was made, from which DICOM series


def number_cases(folder: Path, images: Sequence[tuple[str, Mapping[str, Any]]]) -> list[int]:
    """Numbers images: as the stored case of the same files or series is, and the others with the lowest that are free.

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
