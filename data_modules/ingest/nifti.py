"""NIfTI files, read no further than their headers say."""

import gzip
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from data_modules.ingest.images import UnusableError

SUFFIXES = (".nii", ".nii.gz")
MASK_VALUES = 16  # a volume of no more distinct values is taken for a segmentation
MAX_VOXELS = 2**29  # a volume of 800 x 800 x 800; a header that states more is damaged or malicious
MAX_OFFSET = 2**24  # bytes before the voxels: header and its extensions
SLACK = 2**20  # bytes that may follow the voxels
PIECE = 2**20  # bytes unpacked at a time
UNITS_IN_MM = {1: 1000.0, 3: 0.001}  # by NIfTI code: metres, micrometres; all else is taken for mm


def find_nifti(files: Iterable[str]) -> tuple[list[str], set[str]]:
    """Returns the volumes among files, of a pair the .img, and all the files that belong to them, the .hdr too."""
    names = set(files)
    pairs = {file: file[:-4] + ".hdr" for file in names if file.endswith(".img") and file[:-4] + ".hdr" in names}
    volumes = sorted([*pairs, *(file for file in names if file.lower().endswith(SUFFIXES))])
    return volumes, {*volumes, *pairs.values()}


def read_nifti(file: Path, zooms: Sequence[float] = ()) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Reads a volume, compressed or not, whatever its suffix says; of a pair, give the .img.

    No more is unpacked than the header states, whatever the file would unpack to.

    Args:
        file: The NIfTI file.
        zooms: Voxel size in mm along the file's axes that replaces the header's; empty: the header's holds.

    Returns:
        Volume (X, Y, Z) float32, its affine (4, 4) to RAS coordinates in mm, and its provenance.

    Raises:
        UnusableError: It is not NIfTI, no single volume, without orientation, too large, damaged, or its values are no
            image's.
    """
    with open_voxels(file) as (header, stream):
        if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
            raise UnusableError("no orientation: sform_code and qform_code are 0")
        volume = read_voxels(header, stream).astype(np.float32)
    check_values(volume)
    affine = _affine(header)
    origin: dict[str, Any] = {"format": "NIfTI"}
    if zooms:
        origin["header_spacing"] = spacing_of(affine).round(5).tolist()
        affine[:3, :3] *= np.array(zooms) / np.maximum(spacing_of(affine), 1e-9)
    return volume, affine, origin


def read_grid(file: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Reads the shape (X, Y, Z) and the affine (4, 4) to RAS coordinates in mm that a file's header states.

    Raises:
        UnusableError: As `read_nifti`, as far as the header tells.
    """
    with open_voxels(file) as (header, _):
        return header.get_data_shape()[:3], _affine(header)


def check_values(volume: np.ndarray) -> None:
    """Checks that a volume's values are an image's.

    Raises:
        UnusableError: They are not all finite, all the same, or so few that it is a segmentation.
    """
    if not np.isfinite(volume).all():
        raise UnusableError(f"{int((~np.isfinite(volume)).sum())} voxels are not finite")
    if volume.min() == volume.max():
        raise UnusableError("all voxels have the same value")
    sample = volume.ravel(order="K")[:: max(1, volume.size // 4096)]
    if len(np.unique(sample)) <= MASK_VALUES and (n := len(np.unique(volume))) <= MASK_VALUES:
        raise UnusableError(f"only {n} distinct values: a segmentation, not an image")


@contextmanager
def open_voxels(file: Path) -> Iterator[tuple[Any, BinaryIO]]:
    """Yields a file's header, checked, and a stream that stands before the first voxel.

    Raises:
        UnusableError: It is damaged or holds no single volume of at most `MAX_VOXELS`.
    """
    paired = file.name.endswith(".img")
    with _unpacked(file.with_suffix(".hdr") if paired else file) as stream:
        header = _read_header(stream, paired)
        offset = header.get_data_offset()
        if not paired:
            _skip(stream, offset - header.structarr.dtype.itemsize)
            yield header, stream
    if paired:
        with _unpacked(file) as stream:
            _skip(stream, offset)
            yield header, stream


def read_voxels(header: Any, stream: BinaryIO) -> np.ndarray:
    """Reads the voxels (X, Y, Z) from a stream that stands before them, scaled as the header says.

    Raises:
        UnusableError: The stream ends early, or goes on for more than `SLACK` bytes.
    """
    values = np.frombuffer(b"".join(read_pieces(stream, count_bytes(header))), header.get_data_dtype())
    if sum(len(stream.read(PIECE)) for _ in range(SLACK // PIECE + 1)) > SLACK:
        raise UnusableError(f"it goes on after the {count_bytes(header)} bytes of voxels that its header states")
    slope, inter = header.get_slope_inter()
    if slope is not None:
        values = apply_read_scaling(values, np.float64(slope), np.float64(inter))
    return values.reshape(header.get_data_shape()[:3], order="F")


def read_pieces(stream: BinaryIO, n: int) -> Iterator[bytes]:
    """Yields the next n bytes of a stream, at most `PIECE` at a time.

    Raises:
        UnusableError: There are fewer.
    """
    left = n
    while left > 0:
        piece = stream.read(min(PIECE, left))
        if not piece:
            raise UnusableError(f"the file ends early: {n - left} of {n} bytes")
        left -= len(piece)
        yield piece


def count_bytes(header: Any) -> int:
    """Returns how many bytes of voxels a header states."""
    return math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """Returns the voxel size (3,) of an affine (4, 4) along the axes of the array."""
    return np.linalg.norm(affine[:3, :3], axis=0)


@contextmanager
def _unpacked(file: Path) -> Iterator[Any]:
    try:
        with file.open("rb") as packed:
            compressed = packed.read(2) == b"\x1f\x8b"
            packed.seek(0)
            with gzip.GzipFile(fileobj=packed) if compressed else nullcontext(packed) as stream:
                yield stream
    except EOFError as error:
        raise UnusableError("the gzip stream ends early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UnusableError("the gzip stream is damaged and cannot be read", error) from error


def _read_header(stream: BinaryIO, paired: bool) -> Any:
    start = stream.read(4)
    if not start:
        raise UnusableError("the file is empty")
    sizes = {int.from_bytes(start, order) for order in ("little", "big")} & {348, 540}
    if not sizes:
        raise UnusableError("not a NIfTI file")
    classes = {
        348: (nib.Nifti1Header, nib.nifti1.Nifti1PairHeader),
        540: (nib.Nifti2Header, nib.nifti2.Nifti2PairHeader),
    }
    size = sizes.pop()
    block = start + b"".join(read_pieces(stream, size - 4))
    try:
        header = classes[size][paired](block)
        shape, kind, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise UnusableError("a damaged NIfTI header", error) from error
    if len(shape) < 3 or min(shape) < 1:
        raise UnusableError(f"not a volume: its shape is {shape}")
    if any(length > 1 for length in shape[3:]):
        raise UnusableError(f"{len(shape)}D ({' x '.join(map(str, shape))}): it holds several volumes")
    if kind.fields is not None or kind.kind == "c":
        raise UnusableError("a colour or complex image")
    if math.prod(shape) > MAX_VOXELS:
        raise UnusableError(f"its header states {' x '.join(map(str, shape))} voxels, more than {MAX_VOXELS}")
    if not (0 if paired else size) <= offset <= MAX_OFFSET:
        raise UnusableError(f"a damaged NIfTI header: its voxels start at byte {offset}")
    return header


def _skip(stream: BinaryIO, n: int) -> None:
    for _ in read_pieces(stream, n):
        pass


def _affine(header: Any) -> np.ndarray:
    affine = np.array(header.get_best_affine(), dtype=float)
    affine[:3] *= UNITS_IN_MM.get(int(header["xyzt_units"]) % 8, 1.0)  # its higher bits are the unit of time
    return affine
