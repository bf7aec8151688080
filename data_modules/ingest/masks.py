"""Segmentations that say where in a volume the pelvis is."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from data_modules.ingest.images import UnusableError
from data_modules.ingest.nifti import count_bytes, open_voxels, read_grid, read_pieces, read_voxels, spacing_of

SAME_GRID = 0.1  # voxels that the corners of a segmentation may be off


def is_blank(file: Path) -> bool:
    """Tells whether all voxels of a segmentation are 0; it reads as far as the first that is not.

    Raises:
        UnusableError: As `read_nifti`, as far as it was read.
    """
    with open_voxels(file) as (header, stream):
        return not any(np.frombuffer(piece, np.uint8).any() for piece in read_pieces(stream, count_bytes(header)))


def find_middle(masks: Sequence[Path], shape: Sequence[int], affine: np.ndarray) -> tuple[np.ndarray | None, list[str]]:
    """Finds the middle of the box around all segmentations of a volume.

    A segmentation belongs to the volume if its voxels are the volume's, in whatever order the axes are stored. One that
    states 1 x 1 x 1 mm, as headers do that nobody filled in, belongs to a volume of the same shape and another spacing.

    Args:
        masks: NIfTI files.
        shape: Of the volume.
        affine: Of the volume, (4, 4) to RAS coordinates in mm.

    Returns:
        RAS point (3,) in mm, None where no segmentation is of use; and a line for each that is not as it should be.
    """
    corners: list[np.ndarray] = []
    warnings = []
    for number, file in enumerate(masks, 1):
        try:
            grid = read_grid(file)
            into_volume, remark = _into_volume(*grid, tuple(shape), affine)
            corners.append(nib.affines.apply_affine(into_volume, _box(file)))
        except Exception as error:
            # whatever is wrong with a segmentation, the volume can be had without
            remark = f"ignored: {error.reason if isinstance(error, UnusableError) else type(error).__name__}"
        if remark:
            warnings.append(f"mask {number} of {len(masks)} {remark}")
    if not corners:
        return None, warnings
    box = np.concatenate(corners)
    return nib.affines.apply_affine(affine, (box.min(0) + box.max(0)) / 2), warnings


def is_unit(affine: np.ndarray) -> bool:
    """Tells whether an affine (4, 4) has voxels of 1 x 1 x 1 mm, which no scanner's thick slices have."""
    return bool(np.allclose(spacing_of(affine), 1.0, atol=1e-3))


def _into_volume(
    mask_shape: tuple[int, ...], mask_affine: np.ndarray, shape: tuple[int, ...], affine: np.ndarray
) -> tuple[np.ndarray, str]:
    """The affine (4, 4) from the indices of a segmentation to those of its volume, and a remark."""
    if is_unit(mask_affine) and not is_unit(affine) and mask_shape == shape:
        return np.eye(4), "taken voxel by voxel: its header states 1 x 1 x 1 mm"
    into_volume = np.linalg.inv(affine) @ mask_affine
    corners = np.array(list(itertools.product(*((0, length - 1) for length in mask_shape))))
    mapped = nib.affines.apply_affine(into_volume, corners)
    near = mapped.round()
    same = sorted(mask_shape) == sorted(shape) and np.abs(mapped - near).max() < SAME_GRID
    if not (same and (near.min(0) == 0).all() and (near.max(0) == np.array(shape) - 1).all()):
        raise UnusableError("not on the volume's grid")
    return into_volume, ""


def _box(file: Path) -> np.ndarray:
    """First and last index (2, 3) of what a segmentation marks."""
    with open_voxels(file) as (header, stream):
        marked = read_voxels(header, stream) > 0
    indices = [np.flatnonzero(marked.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not indices[0].size:
        raise UnusableError("empty")
    return np.array([[index[0] for index in indices], [index[-1] for index in indices]])
