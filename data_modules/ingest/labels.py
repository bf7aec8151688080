"""The hospital's label CSV."""

import csv
import io
import math
from dataclasses import dataclass, field
from pathlib import Path

from data_modules.errors import InputError

COLUMNS = ("patient_id", "label", "path", "fold")
MISSING = {"", "na", "n/a", "nan", "none", "null"}
IDENTIFIER_FROM = 100_000  # a whole number this large is rather a record number or a date than a covariate


@dataclass(frozen=True)
class LabelRow:
    """A row of the CSV.

    Attributes:
        line: Its line in the file, the header being line 1.
        patient: The patient's id as the hospital writes it.
        label: 1.0 obliterated, 0.0 free, nan unlabelled.
        path: The file or folder it describes, relative to the CSV's folder; empty: all files of the patient.
        fold: The patient's fold, or None.
        covariates: Numbers by column name, nan where missing.
    """

    line: int
    patient: str
    label: float
    path: str = ""
    fold: int | None = None
    covariates: dict[str, float] = field(default_factory=dict)


def read_labels(file: Path) -> tuple[list[LabelRow], list[str]]:
    """Reads a label CSV in UTF-8 (with or without BOM) or Latin-1, separated by commas, semicolons or tabs.

    Returns:
        The rows, and the names of columns that are left out because they are not numeric or look like identifiers.

    Raises:
        InputError: The file is missing, lacks a column, or has a row with a wrong patient, label or fold.
    """
    records = _read_records(file)
    names = list(records[0][1]) if records else []
    covariates = [name for name in names if name and name not in COLUMNS and _is_covariate(name, records)]
    rows = [_row(file, line, record, covariates) for line, record in records]
    folds: dict[str, int | None] = {}
    for row in rows:
        if folds.setdefault(row.patient, row.fold) != row.fold:
            raise InputError(f"{file}: patient {row.patient} is in two folds; give all rows of a patient the same fold")
    return rows, [name for name in names if name and name not in (*COLUMNS, *covariates)]


def _read_records(file: Path) -> list[tuple[int, dict[str, str]]]:
    if not file.is_file():
        raise InputError(f"{file}: no such label file; correct --labels")
    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    header = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    names = [name.strip().lower() for name in next(reader, [])]
    for column in COLUMNS[:2]:
        if column not in names:
            raise InputError(
                f"{file}: has no column {column}; it needs patient_id and label, and may have path and fold"
            )
    records = []
    for cells in reader:
        if any(cell.strip() for cell in cells):
            if len(cells) > len(names):
                raise InputError(
                    f"{file}: row {reader.line_num} has {len(cells)} cells for {len(names)} columns; correct it"
                )
            padded = [*cells, *[""] * (len(names) - len(cells))]
            records.append((reader.line_num, {name: cell.strip() for name, cell in zip(names, padded, strict=True)}))
    return records


def _row(file: Path, line: int, record: dict[str, str], covariates: list[str]) -> LabelRow:
    if not record["patient_id"]:
        raise InputError(f"{file}: row {line} has no patient_id; fill it in or remove the row")
    label = _number(record["label"])
    if label is None or not (math.isnan(label) or label in (0, 1)):
        raise InputError(
            f"{file}: row {line} has label {record['label']!r}; use 1 (obliterated), 0 (free) or leave it empty"
        )
    fold = _number(record.get("fold", ""))
    if fold is None or not (math.isnan(fold) or (fold >= 0 and fold % 1 == 0)):
        raise InputError(f"{file}: row {line} has fold {record['fold']!r}; use 0, 1, 2, ... or leave it empty")
    return LabelRow(
        line=line,
        patient=record["patient_id"],
        label=label,
        path=record.get("path", "").replace("\\", "/").rstrip("/"),
        fold=None if math.isnan(fold) else int(fold),
        covariates={name: _number(record[name]) or 0.0 for name in covariates},
    )


def _is_covariate(name: str, records: list[tuple[int, dict[str, str]]]) -> bool:
    numbers = [_number(record[name]) for _, record in records]
    known = [number for number in numbers if number is not None and not math.isnan(number)]
    whole = all(number % 1 == 0 for number in known)
    return None not in numbers and bool(known) and not (whole and max(map(abs, known)) >= IDENTIFIER_FROM)


def _number(cell: str) -> float | None:
    """The cell's number, nan where it is missing, None where it is something else."""
    if cell.lower() in MISSING:
        return math.nan
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
