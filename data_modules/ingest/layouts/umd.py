"""UMD, the uterine myoma MRI set (figshare 23541312): 300 women, sagittal T2, with segmentations.

Cases are ``UMD_221129_001/UMD_221129_001_{t2,seg}.nii.gz`` with the DICOM slices beside them. Some masks are called
``_seq``, some have another case's number, and some ``.gz`` files are not compressed. Where the header of the T2 volume
states 1 x 1 x 1 mm, which it was never filled in with, the DICOM slices give the geometry.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pydicom

from data_modules.ingest.dicom import Frame, scan_files
from data_modules.ingest.images import Rejection, SourceImage, UnusableError
from data_modules.ingest.layouts import group_by_case, is_nifti, stem_of, try_files
from data_modules.ingest.masks import is_unit
from data_modules.ingest.nifti import read_grid
from data_modules.ingest.series import find_volumes
from data_modules.ingest.workers import Map

CASE = re.compile(r"UMD_\d+_\d+", re.IGNORECASE)
MASKS = ("_seg", "_seq")
SLICES = re.compile(r"[^.]+|.*\.(dcm|dicom|ima|\d+)", re.IGNORECASE)  # names of DICOM files
UNKNOWN = "voxel size unknown: its header states 1 x 1 x 1 mm, and "

Shape = tuple[int, int, int]


def find(source: Path, files: Sequence[str], over: Map) -> tuple[list[SourceImage], list[Rejection]]:
    """Finds one T2 volume a case; its mask leads the crop."""
    cases, rejections = group_by_case(files, CASE)
    named: list[SourceImage] = []
    for folder, members in cases.items():
        images, left_out = _name_files(folder, members)
        named += images
        rejections += left_out
    # a header that cannot be read is left to the reader, which tells why
    grids = try_files(read_grid, source, [image.files[0] for image in named], over)
    shapes = {image.study: grid[0] for image, grid in zip(named, grids, strict=True) if grid and is_unit(grid[1])}
    folder_of = {file: folder for folder in shapes for file in cases[folder] if _is_slice(file)}
    frames, unreadable = scan_files(source, list(folder_of), over)
    frames_of = defaultdict(list)
    for frame in frames:
        frames_of[folder_of[frame.file]].append(frame)
    found = []
    for image in named:
        try:
            shape = shapes.get(image.study)
            found.append(_measure(source, image, shape, frames_of[image.study]) if shape else image)
        except UnusableError as error:
            rejections.append(Rejection(image.source, error.reason))
    return found, rejections + unreadable


def _name_files(folder: str, members: Sequence[str]) -> tuple[list[SourceImage], list[Rejection]]:
    """The volume of a case folder, as its files' names tell, and what does not belong there."""
    volumes = [file for file in members if is_nifti(file) and stem_of(file).endswith("_t2")]
    masks = [file for file in members if is_nifti(file) and stem_of(file).endswith(MASKS)]
    rejections = [Rejection(file, "a second T2 volume of the case: the first is used") for file in volumes[1:]]
    for file in members:
        if not _is_slice(file) and file not in volumes + masks:
            rejections.append(Rejection(file, "not part of the set", defect=is_nifti(file)))
    if not volumes:
        return [], [*rejections, Rejection(folder, "no T2 volume (_t2.nii.gz) in the case folder")]
    choice: dict[str, str | int] = {"sequence": "T2", "geometry": "NIfTI header"}
    patient = PurePosixPath(folder).name
    image = SourceImage((volumes[0],), "nifti", patient, study=folder, choice=choice, masks=tuple(masks))
    return [image], rejections


def _is_slice(file: str) -> bool:
    return SLICES.fullmatch(PurePosixPath(file).name) is not None


def _measure(source: Path, image: SourceImage, shape: Shape, frames: Sequence[Frame]) -> SourceImage:
    """The volume of the DICOM slices, or the NIfTI volume with their spacing."""
    if not frames:
        raise UnusableError(UNKNOWN + "no DICOM slices lie beside it")
    size_of = {frame.file: frame.size for frame in frames}
    volumes = [
        volume
        for volume in find_volumes(frames)[0]
        if sorted((len(volume.files), *size_of[volume.files[0]])) == sorted(shape)
    ]
    if volumes:
        best = max(volumes, key=lambda volume: volume.preference)
        choice = {**image.choice, "geometry": "DICOM slices: the NIfTI header states 1 x 1 x 1 mm"}
        return replace(best, patient=image.patient, study=image.study, objection="", choice=choice, masks=image.masks)
    stacks = defaultdict(list)
    for frame in frames:
        stacks[frame.series, frame.size, frame.spacing].append(frame)
    for (_, size, spacing), stack in stacks.items():
        fits = sorted((len(stack), *size)) == sorted(shape)
        if fits and len(spacing) == 2 and (distance := _slice_distance(source / stack[0].file)):
            geometry = "NIfTI header, its 1 x 1 x 1 mm replaced by the DICOM slices' spacing"
            zooms = _order(shape, len(stack), size, (spacing[0], spacing[1]), distance)
            return replace(image, zooms=zooms, choice={**image.choice, "geometry": geometry})
    raise UnusableError(UNKNOWN + "the DICOM slices beside it make no volume of its shape")


def _slice_distance(file: Path) -> float:
    """Distance between slices in mm, 0 where it is unknown."""
    tags = ["SpacingBetweenSlices", "SliceThickness"]
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags, force=True)
        return float(header.get(tags[0]) or header.get(tags[1]) or 0)
    except Exception:
        # a damaged header fails in any of pydicom's ways
        return 0.0


def _order(
    shape: Shape, n: int, size: tuple[int, int], spacing: tuple[float, float], distance: float
) -> tuple[float, ...]:
    """Voxel size in mm along the file's axes, of which one has n slices and the others are size, rows and columns."""
    across = max(axis for axis in range(3) if shape[axis] == n)  # converters write slices last
    columns, rows = (axis for axis in range(3) if axis != across)  # and columns first
    if (shape[rows], shape[columns]) != size:
        columns, rows = rows, columns
    zooms = {across: distance, rows: spacing[0], columns: spacing[1]}
    return tuple(zooms[axis] for axis in range(3))
