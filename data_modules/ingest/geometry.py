"""A second opinion on where a DICOM series lies."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813

from data_modules.ingest.aliases import alias
from data_modules.ingest.images import UnusableError

TOLERANCE = 0.1  # mm, at the corners of the first and the last slice


def check_geometry(source: Path, files: Sequence[str], affine: np.ndarray) -> str:
    """Compares the affine of a series of single-frame files with SimpleITK's reading of the first and the last header.

    SimpleITK alone would not do: in its own order of the files it silently misplaces series with missing slices,
    several echoes or a tilt, and it takes the frames of enhanced objects as they lie in the file
    (``benchmarks/geometry.py``). So slices are sorted and checked by their tags, and SimpleITK must agree.

    Args:
        source: The source folder.
        files: Of the planes, in the order of the affine's first axis.
        affine: (4, 4) from (slice, row, column) to RAS coordinates in mm.

    Returns:
        ``"SimpleITK agrees"``, or, where it cannot read a header or the object has several frames, that it was not
        asked.

    Raises:
        UnusableError: A corner lies elsewhere by more than 0.1 mm.
    """
    if len(set(files)) < len(files):
        return "not asked: several frames in a file"
    sitk.ProcessObject.GlobalWarningDisplayOff()  # warnings quote headers
    for index in {0, len(files) - 1}:
        reader = sitk.ImageFileReader()
        with alias(source / files[index]) as name:
            reader.SetFileName(str(name))
            try:
                reader.ReadImageInformation()
            except RuntimeError:
                return "not asked: SimpleITK cannot read the header"
        columns, rows = reader.GetSize()[:2]
        direction = np.array(reader.GetDirection()).reshape(3, 3)[:, :2] * reader.GetSpacing()[:2]
        corners = np.array(list(itertools.product((0, rows - 1), (0, columns - 1))))
        theirs = reader.GetOrigin() + corners[:, ::-1] @ direction.T
        ours = nib.affines.apply_affine(affine, np.insert(corners, 0, index, 1)) * [-1, -1, 1]
        if (distance := np.abs(theirs - ours).max()) > TOLERANCE:
            raise UnusableError(f"SimpleITK reads a geometry that is {distance:.1f} mm off")
    return "SimpleITK agrees"
