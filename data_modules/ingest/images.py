"""What is found in a source folder: images that may become cases, and files that may not."""

from dataclasses import dataclass, field
from typing import Literal


class UnusableError(Exception):
    """An image that cannot become a case.

    Args:
        reason: Why, in our words.
        cause: The error behind it, whose text may hold names from the file.
    """

    def __init__(self, reason: str, cause: Exception | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = "" if cause is None else f"{type(cause).__name__}: {cause}"


@dataclass(frozen=True)
class Rejection:
    """Something in the source that is left out.

    Attributes:
        source: Path relative to the source folder.
        reason: Why, in our words.
        detail: The text of an error, which may hold names from the file.
        defect: False where nothing is wrong with it, e.g. a localiser.
    """

    source: str
    reason: str
    detail: str = ""
    defect: bool = True


@dataclass(frozen=True)
class SourceImage:
    """An image in the source folder.

    Attributes:
        files: Its files, relative to the source folder; a DICOM series' in the order of the slices.
        format: How to read it; ``"frames"`` is a folder of pictures, in the order of the files.
        patient: The patient's id as the files have it.
        study: What one volume is chosen from: the DICOM study, otherwise the file (of NIfTI see `Matching`).
        frames: Frame in each file, for multi-frame DICOM.
        affine: Of a DICOM volume, (4, 4) from (slice, row, column) to RAS coordinates in mm.
        series: DICOM series UID.
        inverted: Whether low values are bright (DICOM's MONOCHROME1), so that they are turned around.
        preference: The greatest of a study is chosen.
        objection: Why it is only used where a label row names it; empty: nothing against it.
        choice: What is recorded of the choice.
        masks: NIfTI segmentations in its space, around whose middle the grid is laid; empty: around its own middle.
        zooms: Voxel size in mm that replaces the header's, along the file's axes; empty: the header's holds.
    """

    files: tuple[str, ...]
    format: Literal["dicom", "nifti", "video", "frames"]
    patient: str
    study: str
    frames: tuple[int, ...] = ()
    affine: tuple[tuple[float, ...], ...] = ()
    series: str = ""
    inverted: bool = False
    preference: tuple[float, ...] = ()
    objection: str = ""
    choice: dict[str, str | int] = field(default_factory=dict)
    masks: tuple[str, ...] = ()
    zooms: tuple[float, ...] = ()

    @property
    def source(self) -> str:
        """Its file, or its folder and how many of the files there it is."""
        if len(set(self.files)) == 1:
            return self.files[0]
        return describe_files(self.files)


def describe_files(files: tuple[str, ...]) -> str:
    """Returns the first of some files and how many there are."""
    return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more files"
