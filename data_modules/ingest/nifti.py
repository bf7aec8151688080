"""NIfTI volumes."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from data_modules.ingest.images import UnusableError

SUFFIXES = (".nii", ".nii.gz")
MASK_VALUES = 16  # a volume of no more distinct values is taken for a segmentation
UNITS_IN_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


def read_nifti(file: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Reads a volume, compressed or not, whatever its suffix says.

    Returns:
        Volume (X, Y, Z) float32, its affine (4, 4) to RAS coordinates in mm, and its provenance.

    Raises:
        UnusableError: It is not NIfTI, no single volume, without orientation, or its values are no image's.
    """
    content = file.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if not content:
        raise UnusableError("the file is empty")
    size = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    if not size & {348, 540}:
        raise UnusableError("not a NIfTI file")
    image = (nib.Nifti2Image if 540 in size else nib.Nifti1Image).from_bytes(content)
    shape = image.shape
    if 0 in shape or len(shape) < 3:
        raise UnusableError(f"not a volume: its shape is {shape}")
    if any(length > 1 for length in shape[3:]):
        raise UnusableError(f"{len(shape)}D ({' x '.join(map(str, shape))}): it holds several volumes")
    if image.get_data_dtype().fields is not None or image.get_data_dtype().kind == "c":
        raise UnusableError("a colour or complex image")
    header = image.header
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise UnusableError("no orientation: sform_code and qform_code are 0")
    volume = np.asarray(image.dataobj, dtype=np.float32).reshape(shape[:3])
    check_values(volume)
    affine = np.array(image.affine, dtype=float)
    affine[:3] *= UNITS_IN_MM[header.get_xyzt_units()[0]]
    return volume, affine, {"format": "NIfTI"}


def check_values(volume: np.ndarray) -> None:
    """Checks that a volume's values are an image's.

    Raises:
        UnusableError: They are not all finite, all the same, or so few that it is a segmentation.
    """
    if not np.isfinite(volume).all():
        raise UnusableError(f"{int((~np.isfinite(volume)).sum())} voxels are not finite")
    if volume.min() == volume.max():
        raise UnusableError("all voxels have the same value")
    sample = volume.reshape(-1)[:: max(1, volume.size // 4096)]
    if len(np.unique(sample)) <= MASK_VALUES and (n := len(np.unique(volume))) <= MASK_VALUES:
        raise UnusableError(f"only {n} distinct values: a segmentation, not an image")
