"""The one list that names the hospital's files, for those who may see it."""

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_modules.errors import InputError
from data_modules.files import replacing
from data_modules.ingest.cases import Case
from data_modules.ingest.images import Rejection


def check_sources_file(file: Path, cohort: Path) -> None:
    """Checks that the list will not lie in the cohort, which others get.

    Raises:
        InputError: It would, or its folder is not there.
    """
    if file.resolve().is_relative_to(cohort.resolve()):
        raise InputError(f"--sources {file}: it names patients' files, keep it outside the cohort {cohort}")
    if file.is_dir() or not file.parent.is_dir():
        raise InputError(f"--sources {file}: give a file in a folder that exists")


def write_sources(file: Path, cases: Sequence[Case], rejections: Iterable[Rejection]) -> None:
    """Lists which file became which case, and what was left out, under the names that the source gives them.

    The file is readable by its owner alone; ``rejected.csv`` in the cohort has the same entries with names concealed.
    """
    made = [(case.case_id, case.match.image.source, "") for case in cases]
    left_out = [("", rejection.source, rejection.reason) for rejection in rejections]
    with replacing(file) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", newline="", encoding="utf-8", errors="backslashreplace") as handle:
            rows = sorted([*made, *left_out], key=lambda row: row[1])
            writer = csv.writer(handle)
            writer.writerow(("case_id", "source", "reason"))
            writer.writerows(rows)
