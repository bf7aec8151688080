"""Finds the images of a source folder."""

import math
import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from data_modules.ingest import nifti, video
from data_modules.ingest.concealing import identifiers_in
from data_modules.ingest.dicom import Frame, scan_files
from data_modules.ingest.folders import patient_of_name
from data_modules.ingest.frames import BESIDE, frame_folders, why_no_clip
from data_modules.ingest.images import Rejection, SourceImage, describe_files
from data_modules.ingest.layouts import try_files
from data_modules.ingest.rules import PLANES, SeriesRules, SeriesTraits, weighting_of
from data_modules.ingest.series import find_volumes
from data_modules.ingest.workers import Map

Grid = tuple[tuple[int, int, int], np.ndarray]
"""The shape (X, Y, Z) of a NIfTI file and its affine (4, 4) to RAS coordinates in mm."""


def list_files(source: Path, without: Path) -> tuple[list[str], list[Rejection]]:
    """Lists all files below a folder but one, links followed; hidden ones and macOS' doubles are passed over.

    Returns:
        Files relative to the folder, sorted; and what cannot be read: broken links, links that lead back to a folder
        above them or to one that is listed already, files and folders without permission, empty files, devices.
    """
    files: list[str] = []
    rejections: list[Rejection] = []
    seen: dict[str, str] = {}  # where a folder was first met, by its true path
    links: list[str] = []  # after all true folders, so that a folder keeps its own name
    pending = [""]
    while pending or links:
        folder = pending.pop() if pending else links.pop()
        true = os.path.realpath(source / folder)
        if true in seen:
            rejections.append(_seen_before(source, folder, seen[true]))
            continue
        seen[true] = folder
        try:
            entries = sorted(os.scandir(source / folder), key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            rejections.append(Rejection(folder, _cannot_open(error)))
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith(".") or entry.name == "__MACOSX" or Path(entry.path) == without:
                continue
            reason = _unreadable(entry)
            if reason:
                rejections.append(Rejection(path, reason))
            elif entry.is_dir():
                (links if entry.is_symlink() else pending).append(path)
            else:
                files.append(path)
    return sorted(files), rejections


def find_mri(
    source: Path, files: Sequence[str], over: Map, rules: SeriesRules
) -> tuple[list[SourceImage], list[Rejection], dict[str, str]]:
    """Finds the MR volumes among files.

    Returns:
        Images; files that are left out; and patient id by each identifier met (see `Pseudonyms.concealer`).
    """
    volumes, parts = nifti.find_nifti(files)
    frames, rejections = scan_files(source, sorted(set(files) - parts), over)
    images, unfit = find_volumes(frames, rules)
    grids = dict(zip(volumes, try_files(_grid_of, source, volumes, over), strict=True))
    alike = Counter((PurePosixPath(file).parent, patient_of_name(file)) for file in volumes)
    several = [file for file in volumes if alike[PurePosixPath(file).parent, patient_of_name(file)] > 1]
    # Beside an image of hers, no segmentation of it and no damaged file may be chosen.
    usable = dict(zip(several, try_files(_holds_image, source, several, over), strict=True))
    images += [_nifti_image(file, grids[file] if usable.get(file, True) else None, rules) for file in volumes]
    return images, rejections + unfit, identities_of(frames, images)


def find_tvus(
    source: Path, files: Sequence[str], over: Map
) -> tuple[list[SourceImage], list[Rejection], dict[str, str]]:
    """Finds the ultrasound clips among files; returns as `find_mri`.

    The pictures of a folder are the frames of a clip where they are numbered as such and no other clip lies there.
    """
    videos = [file for file in files if file.lower().endswith(video.SUFFIXES)]
    folders = frame_folders(files)
    pictures = {file for members in folders.values() for file in members}
    frames, rejections = scan_files(source, sorted(set(files) - set(videos) - pictures), over)
    images = [SourceImage((file,), "video", patient_of_name(file), file) for file in videos]
    for frame in frames:
        if frame.index:
            continue
        if frame.modality != "US":
            rejections.append(Rejection(frame.file, f"modality {frame.modality or 'unknown'}, not US", defect=False))
        elif frame.frames < 2:
            rejections.append(Rejection(frame.file, "a single frame, not a clip", defect=False))
        else:
            series = frame.series or frame.file
            images.append(SourceImage((frame.file,), "video", frame.patient or frame.study, frame.file, series=series))
    with_clips = {image.source.rpartition("/")[0] for image in images}
    names = {}
    for folder, members in folders.items():
        patient = patient_of_name(folder or members[0])
        names[patient] = patient
        if folder in with_clips:
            rejections.append(Rejection(describe_files(tuple(members)), BESIDE, defect=False))
        elif reason := why_no_clip(members):
            rejections.append(Rejection(describe_files(tuple(members)), reason))
        else:
            images.append(SourceImage(tuple(members), "frames", patient, folder or members[0]))
    return images, rejections, names | identities_of(frames, images)


def identities_of(frames: Iterable[Frame], images: Iterable[SourceImage]) -> dict[str, str]:
    """Returns the patient's id by each identifier that headers and file names hold."""
    met = dict.fromkeys((text, frame.patient) for frame in frames for text in frame.personal)
    identities = {part: patient for text, patient in met for part in identifiers_in(text)}
    return (
        identities
        | {frame.patient: frame.patient for frame in frames}
        | {image.patient: image.patient for image in images}
    )


def _nifti_image(file: str, grid: Grid | None, rules: SeriesRules) -> SourceImage:
    """A volume, judged by its file's name and by its grid; None: the file is unfit, as reading it will tell."""
    name = PurePosixPath(file).name
    weighting, _ = weighting_of(name)
    plane, slices, gap, pixel = _slices_of(*grid) if grid else ("", 0, 0.0, math.inf)
    traits = SeriesTraits(description=name, weighting=weighting, plane=plane, slices=slices, gap=gap)
    place, rule = rules.preferred(traits)
    known: dict[str, str | int] = {"plane": plane, "slices": slices} if grid else {}
    return SourceImage(
        (file,),
        "nifti",
        patient_of_name(file),
        file,
        preference=(place if grid else -1, slices, -pixel),
        objection=rules.objection(traits),
        choice={"rule": rule, "weighting": weighting or "unknown", **known},
    )


def _grid_of(file: Path) -> Grid | None:
    try:
        shape, affine = nifti.read_grid(file)
    except Exception:  # a damaged header fails in any of nibabel's ways
        return None
    return (shape, affine) if np.isfinite(affine).all() else None


def _holds_image(file: Path) -> bool:
    try:
        nifti.read_nifti(file)
    except Exception:  # as above; a `MemoryError`, too, makes it unfit
        return False
    return True


def _slices_of(shape: tuple[int, int, int], affine: np.ndarray) -> tuple[str, int, float, float]:
    """A grid's plane, number of slices, gap between them and larger side of a pixel, mm.

    The slices lie along the axis of the widest spacing; of equal ones along the last, where converters put them.
    """
    spacing = nifti.spacing_of(affine)
    axis = 2 - int(np.argmax(spacing[::-1].round(3)))
    plane = PLANES[int(np.abs(affine[:3, axis]).argmax())]
    return plane, shape[axis], float(spacing[axis]), float(np.delete(spacing, axis).max())


def _seen_before(source: Path, folder: str, first: str) -> Rejection:
    if not first or PurePosixPath(folder).is_relative_to(first):
        return Rejection(folder, "a link that leads back to a folder above it")
    return Rejection(folder, "a link to a folder that is read already", first, defect=False)


def _unreadable(entry: os.DirEntry[str]) -> str:
    """Why a file or folder cannot be read; empty: it can. Asked before it is opened, for opening a pipe would wait."""
    try:
        status = entry.stat()
    except OSError:
        return "a broken link" if entry.is_symlink() else "it cannot be looked at"
    if stat.S_ISDIR(status.st_mode):
        return ""
    if not stat.S_ISREG(status.st_mode):
        return "neither a file nor a folder"
    if status.st_size == 0:
        return "the file is empty"
    effective = os.access in os.supports_effective_ids
    return "" if os.access(entry.path, os.R_OK, effective_ids=effective) else "no permission to read it"


def _cannot_open(error: OSError) -> str:
    return "no permission to open the folder" if isinstance(error, PermissionError) else "the folder cannot be opened"
