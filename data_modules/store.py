"""The store: an array a case, ready to be mapped into memory, and a record of where it came from beside it."""

import io
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_modules.errors import InputError
from data_modules.files import replacing


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


def is_whole(path: Path) -> bool:
    """Tells whether an array's file is as long as its header says, without reading what it holds."""
    try:
        array = read_array(path)
    except InputError:
        return False
    return isinstance(array, np.memmap) and path.stat().st_size == array.offset + array.nbytes


def read_arrays(paths: Sequence[Path], out: np.ndarray) -> None:
    """Reads whole arrays of one shape and type from the page cache straight into the rows of ``out``.

    To read all of an array so takes a fraction of the time of mapping it, whose pages would be looked up one by one.

    Args:
        paths: N files.
        out: (N, ...) of the arrays' shape and type, contiguous; is written to.

    Raises:
        InputError: A file is missing or damaged, or its array has another shape or type.
    """
    header = _header(out.shape[1:], out.dtype)
    for path, row in zip(paths, out, strict=True):
        if not _read_plain(path, header, row):
            array = read_array(path)
            if array.shape != row.shape or array.dtype != row.dtype:
                raise InputError(
                    f"{path}: is {array.shape} {array.dtype}, others of the cohort {row.shape} {row.dtype}; "
                    "ingest them with one --shape"
                )
            row[...] = array


def read_record(path: Path) -> dict[str, Any] | None:
    """Returns the record beside an array, or None where either is missing or the record is damaged.

    The array may be damaged all the same, which `is_whole` tells: its record still says which case it was.
    """
    if not path.is_file():
        return None
    try:
        record = json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _read_plain(path: Path, header: bytes, row: np.ndarray) -> bool:
    """Reads an array whose file starts as `write_array` starts it; False where it does not, or is not whole."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(len(header)) == header and file.readinto(row.data.cast("B")) == row.nbytes
    except OSError:
        return False


@lru_cache
def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """What a .npy file of this shape and type begins with."""
    file = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
    return file.getvalue()


def _replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as handle:
        write(handle)
