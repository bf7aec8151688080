"""The hospital's label CSV."""

import codecs
import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from data_modules.errors import InputError
from data_modules.ingest.images import Rejection

COLUMNS = ("patient_id", "label", "path", "fold")
RESERVED = ("case_id", "split")  # a manifest's own
MISSING = {"", "na", "n/a", "nan", "none", "null"}
IDENTIFIER_FROM = 100_000  # a whole number this large is rather a record number or a date than a covariate
SEPARATOR = re.compile(r'"?sep=([,;\t|])"?[,;\t ]*\r?\n', re.IGNORECASE)
PERSONAL = re.compile(  # English and German names of columns; no count or finding, such as births or fibroid
    r"name|accession|mrn|phone|telefon|mail|adress|address|street|stra(?:ss|ß)e|initials|medical[\W_]*record"
    r"|birth(?!s|[\W_]*(?:control|weight))|geburts?[\W_]*[djnot]|gebdat|dat(?:e|um)(?![a-z])"
    r"|number(?![\W_]*of)|nummer"
    r"|(?:case|chart|fall|file|hosp|hospital|pat|patient|record|study)[\W_]*(?:id|no|nr|num)(?![a-z])"
    r"|post[\W_]*(?:al|code)|postleit|zip[\W_]*code|social[\W_]*sec|(?<![a-z])(?:patienten|kranken)?akte(?!r)"
    r"|(?<![a-z])(?:id|u?uid|pid|dob|fax|geb|nhs|nr|plz|ssn|svnr|tel|zip)(?![a-z])",
    re.IGNORECASE,
)


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
        personal: What columns such as a name or an accession number hold, to be concealed.
    """

    line: int
    patient: str
    label: float
    path: str = ""
    fold: int | None = None
    covariates: dict[str, float] = field(default_factory=dict)
    personal: tuple[str, ...] = ()


@dataclass(frozen=True)
class Labels:
    """A label CSV.

    Attributes:
        rows: Its rows that name a patient; where the label or the fold is wrong, the label is unknown.
        rejections: What is wrong with rows.
        ignored: Names of columns that are left out because they are not numeric, or because their name or their
            numbers are those of identifiers.
    """

    rows: list[LabelRow] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def read_labels(file: Path) -> Labels:
    """Reads a label CSV in UTF-8 or UTF-16 (with or without BOM) or Latin-1, separated by commas, semicolons or tabs.

    A first line ``sep=;``, which tells Excel the separator, is passed over.

    A row without a patient or with too many cells is left out; one with a wrong label or fold keeps its patient, path
    and covariates, lest her image pass for somebody else's.

    Raises:
        InputError: The file is missing or no CSV, lacks a column, has one twice or one of the manifest's own, or puts a
            patient into two folds.
    """
    records, rejections = _read_records(file)
    names = list(records[0][1]) if records else []
    covariates = [name for name in names if name and name not in COLUMNS and _is_covariate(name, records)]
    ignored = [name for name in names if name and name not in (*COLUMNS, *covariates)]
    rows = []
    folds: dict[str, int | None] = {}
    for line, record in records:
        if reason := _defect(record):
            rejections.append(Rejection(describe_row(file, line), reason))
        if record["patient_id"]:
            row = _row(line, record, covariates, ignored)
            rows.append(row)
            if _fold(record) is not None and folds.setdefault(row.patient, row.fold) != row.fold:
                raise InputError(
                    f"{file}: patient {row.patient} is in two folds; give all rows of a patient the same fold"
                )
    return Labels(rows, rejections, ignored)


def check_given_folds(rows: Iterable[LabelRow], file: Path, n_folds: int) -> None:
    """Checks that the cohort will have the folds that rows give.

    Raises:
        InputError: A row gives another than 0 to K - 1.
    """
    for row in rows:
        if row.fold is not None and row.fold >= n_folds:
            raise InputError(
                f"{file}: row {row.line} has fold {row.fold}; with --folds {n_folds} give 0 to {n_folds - 1}"
            )


def describe_row(file: Path, line: int) -> str:
    """Returns what a row is called in rejected.csv."""
    return f"{file.name} row {line}"


def _read_records(file: Path) -> tuple[list[tuple[int, dict[str, str]]], list[Rejection]]:
    if not file.is_file():
        raise InputError(f"{file}: no such label file; correct --labels")
    text = _decode(file.read_bytes())
    told = SEPARATOR.match(text)
    text = text[told.end() :] if told else text
    header = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=told[1] if told else max(",;\t", key=header.count))
    records, rejections = [], []
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        for column in COLUMNS[:2]:
            if column not in names:
                raise InputError(
                    f"{file}: has no column {column}; it needs patient_id and label, and may have path and fold"
                )
        for column in filter(None, names):
            if names.count(column) > 1:
                raise InputError(f"{file}: has more than one column {column}, in capitals or not; rename or remove one")
            if column in RESERVED:
                raise InputError(f"{file}: has a column {column}, which the manifest has itself; rename or remove it")
        for cells in reader:
            line = reader.line_num + bool(told)
            if len(cells) > len(names) and any(cell.strip() for cell in cells[len(names) :]):
                reason = f"it has {len(cells)} cells for {len(names)} columns"
                rejections.append(Rejection(describe_row(file, line), reason))
            elif any(cell.strip() for cell in cells):
                padded = [*cells, *[""] * (len(names) - len(cells))]
                record = {name: cell.strip() for name, cell in zip(names, padded, strict=False)}
                records.append((line, record))
    except csv.Error as error:
        raise InputError(f"{file}: not a CSV ({error}); save it as CSV in UTF-8") from error
    return records, rejections


def _decode(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    beginning = content[:32]  # of UTF-16 without a mark: the names of columns, every other byte of which is 0
    for encoding, other in (("utf-16-le", beginning[1::2]), ("utf-16-be", beginning[::2])):
        if 2 * other.count(0) > len(other):
            return content.decode(encoding, errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _defect(record: dict[str, str]) -> str:
    """What is wrong with a row; its cells are not quoted, for one in the wrong column may hold a name."""
    if not record["patient_id"]:
        return "it has no patient_id"
    if _label(record) is None:
        return "its label is no label: use 1 (obliterated), 0 (free) or leave it empty"
    if _fold(record) is None:
        return "its fold is no fold: use 0, 1, 2, ... or leave it empty"
    return ""


def _label(record: dict[str, str]) -> float | None:
    """The row's label, nan where it is missing, None where it is none."""
    label = _number(record["label"])
    return label if label is None or math.isnan(label) or label in (0, 1) else None


def _fold(record: dict[str, str]) -> float | None:
    """The row's fold, nan where it is missing, None where it is none."""
    fold = _number(record.get("fold", ""))
    return fold if fold is None or math.isnan(fold) or (fold >= 0 and fold % 1 == 0) else None


def _row(line: int, record: dict[str, str], covariates: list[str], ignored: list[str]) -> LabelRow:
    label, fold = _label(record), _fold(record)
    return LabelRow(
        line=line,
        patient=record["patient_id"],
        label=math.nan if label is None or fold is None else label,
        path=record.get("path", "").replace("\\", "/").rstrip("/"),
        fold=None if fold is None or math.isnan(fold) else int(fold),
        covariates={name: _number(record[name]) or 0.0 for name in covariates},
        personal=tuple(record[name] for name in ignored if PERSONAL.search(name) and _can_identify(record[name])),
    )


def _is_covariate(name: str, records: list[tuple[int, dict[str, str]]]) -> bool:
    if PERSONAL.search(name):
        return False
    numbers = [_number(record[name]) for _, record in records]
    known = [number for number in numbers if number is not None and not math.isnan(number)]
    whole = all(number % 1 == 0 for number in known)
    return None not in numbers and bool(known) and not (whole and max(map(abs, known)) >= IDENTIFIER_FROM)


def _can_identify(cell: str) -> bool:
    """Whether a cell is to be concealed; a number of few digits is not, for it stands in texts of other meaning."""
    return bool(cell) and not (cell.isdecimal() and len(cell) < 4)


def _number(cell: str) -> float | None:
    """The cell's number, nan where it is missing, None where it is something else."""
    if cell.lower() in MISSING:
        return math.nan
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
