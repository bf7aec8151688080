"""The store: an array a case, ready to be mapped into memory, and a record of where it came from beside it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_modules.errors import InputError


def write_array(path: Path, array: np.ndarray, record: dict[str, Any]) -> None:
    """Writes an array to ``path`` (.npy) and its record to the .json beside it.

    Each file appears in one step, the record last: where the record stands, the array is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False).encode()
    _replace(path, lambda handle: np.save(handle, np.ascontiguousarray(array), allow_pickle=False))
    _replace(path.with_suffix(".json"), lambda handle: handle.write(text))


def read_array(path: Path) -> np.ndarray:
    """Returns an array, mapped into memory: only what is used is read.

    Raises:
        InputError: The file is missing or damaged.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable array; ingest the cohort again") from error


def read_record(path: Path) -> dict[str, Any] | None:
    """Returns the record beside an array, or None where array or record is missing or damaged."""
    if not path.is_file():
        return None
    try:
        record = json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as handle:
        write(handle)
    temporary.replace(path)
