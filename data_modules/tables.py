"""Reads the CSV files of a cohort as they stand."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_modules.errors import InputError

REMEDY = "remove it and ingest its files again"


def read_table(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Reads a CSV whose cells are kept as text, empty where missing, these columns first.

    Raises:
        InputError: It is no CSV, or lacks one of the columns.
    """
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a readable CSV ({' '.join(str(error).split())}); {REMEDY}") from error
    for column in columns:
        if column not in table.columns:
            raise InputError(f"{file}: has no column {column}; it needs {', '.join(columns)}: add it, or {REMEDY}")
    return table[[*columns, *(column for column in table.columns if column not in columns)]]


def to_numbers(column: pd.Series, file: Path, name: str, allowed: str) -> pd.Series:
    """Returns the numbers in a column of text as float, nan where a cell is empty.

    Args:
        column: The column.
        file: The CSV that it stands in, for the message.
        name: What to call a number of it.
        allowed: What to use instead of what is no number.

    Raises:
        InputError: A cell is no number; it names the row.
    """
    numbers = pd.to_numeric(column.where(column.ne(""), None), errors="coerce").astype(float)
    wrong = (numbers.isna() & column.ne("")).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"{file}: row {row + 2} has {name} {column.iloc[row]!r}; use {allowed}")
    return numbers
