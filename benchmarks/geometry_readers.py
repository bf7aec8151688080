"""The readers that `geometry.py` compares: each turns a folder of DICOM files into volumes with their affines."""

import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from timing import require

from data_modules.ingest.dicom import read_series, scan_files
from data_modules.ingest.images import SourceImage
from data_modules.ingest.series import find_volumes

dcm2niix = require("dcm2niix")
GEOMETRY = re.compile("interslice|missing images|slice direction|not stacked", re.IGNORECASE)  # what dcm2niix warns of


class RefusedError(Exception):
    """A reader makes no volume of a folder; the message says why, in its words."""


@dataclass(frozen=True)
class Volume:
    """What a reader makes of a series.

    Attributes:
        values: float32 (I, J, K), the axes in the reader's order.
        affine: (4, 4) from their indices to RAS coordinates in mm.
    """

    values: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class Reading:
    """What a reader makes of a folder, and what it says about the geometry while it does."""

    volumes: list[Volume]
    warning: str = ""


Reader = Callable[[Path], Reading]


class Warnings(sitk.LoggerBase):
    """Keeps what ITK would print."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.SetAsGlobalITKLogger()

    def DisplayWarningText(self, text: str) -> None:  # noqa: N802
        """Keeps a warning, without the place in ITK's source."""
        self.texts.append(text.strip().splitlines()[-1].partition("): ")[2])


WARNINGS = Warnings()


def by_poddistill(folder: Path) -> Reading:
    """Reads as `poddistill ingest` does: headers, grouping, pixels."""
    return Reading(
        [Volume(read_series(folder, image.files, image.frames)[0], np.array(image.affine)) for image in _find(folder)]
    )


def by_simpleitk(folder: Path) -> Reading:
    """Reads every series with SimpleITK, in the order that GDCM gives the files."""
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    return _simpleitk([sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), one) for one in series])


def by_simpleitk_in_our_order(folder: Path) -> Reading:
    """Reads with SimpleITK the files that poddistill has grouped and sorted; frames in a file keep their order."""
    return _simpleitk([[str(folder / file) for file in dict.fromkeys(image.files)] for image in _find(folder)])


def by_dcm2niix(folder: Path) -> Reading:
    """Converts with dcm2niix to NIfTI without compression, and reads that with nibabel."""
    with tempfile.TemporaryDirectory() as out:
        command = [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "%s", "-o", out, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        volumes = [volume for file in sorted(Path(out).glob("*.nii")) for volume in _nifti(file)]
    if not volumes:
        raise RefusedError(" ".join(done.stdout.split()) or f"exit status {done.returncode}")
    return Reading(volumes, "; ".join(line for line in done.stdout.splitlines() if GEOMETRY.search(line)))


READERS: dict[str, Reader] = {
    "poddistill": by_poddistill,
    "SimpleITK, GDCM's order": by_simpleitk,
    "SimpleITK, our order": by_simpleitk_in_our_order,
    "dcm2niix": by_dcm2niix,
}


def _find(folder: Path) -> list[SourceImage]:
    files = sorted(file.name for file in folder.iterdir())
    frames, unreadable = scan_files(folder, files, map)
    images, unfit = find_volumes(frames)
    if not images:
        raise RefusedError("; ".join(dict.fromkeys(rejection.reason for rejection in (*unreadable, *unfit))))
    return images


def _simpleitk(stacks: Sequence[Sequence[str]]) -> Reading:
    WARNINGS.texts.clear()
    try:
        volumes = [_read_stack(files) for files in stacks]
    except RuntimeError as error:
        raise RefusedError(str(error).strip().splitlines()[-1]) from error
    return Reading(volumes, "; ".join(WARNINGS.texts))


def _read_stack(files: Sequence[str]) -> Volume:
    if len(files) == 1:
        image = sitk.ReadImage(files[0], sitk.sitkFloat32)
    else:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(files)
        reader.SetOutputPixelType(sitk.sitkFloat32)
        image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return Volume(sitk.GetArrayFromImage(image), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def _nifti(file: Path) -> list[Volume]:
    image = nib.load(file)
    assert isinstance(image, nib.Nifti1Image) and image.affine is not None
    values = np.asarray(image.dataobj, dtype=np.float32)
    values = values.reshape(*values.shape[:3], -1)
    return [Volume(values[..., index], image.affine) for index in range(values.shape[3])]
