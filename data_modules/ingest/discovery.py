"""Finds the images of a source folder."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from data_modules.ingest import nifti, video
from data_modules.ingest.dicom import Frame, scan_files
from data_modules.ingest.images import Rejection, SourceImage
from data_modules.ingest.series import find_volumes
from data_modules.ingest.workers import Map


def list_files(source: Path, without: Path) -> list[str]:
    """Returns all files below a folder, relative to it and sorted, but for one, hidden ones and macOS' doubles."""
    found = []
    for folder, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(file.relative_to(source).as_posix() for file in found if file != without)


def find_mri(
    source: Path, files: Sequence[str], over: Map
) -> tuple[list[SourceImage], list[Rejection], dict[str, str]]:
    """Finds the MR volumes among files.

    Returns:
        Images; files that are left out; and patient id by each identifier met (see `Pseudonyms.concealer`).
    """
    volumes = [file for file in files if file.lower().endswith(nifti.SUFFIXES)]
    frames, rejections = scan_files(source, sorted(set(files) - set(volumes)), over)
    images, unfit = find_volumes(frames)
    for file in volumes:
        preference = ("t2" in re.split(r"[_.\- ]", PurePosixPath(file).name.lower()),)
        images.append(SourceImage((file,), "nifti", patient_of_name(file), file, preference=preference))
    return images, rejections + unfit, _identities(frames, images)


def find_tvus(
    source: Path, files: Sequence[str], over: Map
) -> tuple[list[SourceImage], list[Rejection], dict[str, str]]:
    """Finds the ultrasound clips among files; returns as `find_mri`."""
    videos = [file for file in files if file.lower().endswith(video.SUFFIXES)]
    frames, rejections = scan_files(source, sorted(set(files) - set(videos)), over)
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
    return images, rejections, _identities(frames, images)


def patient_of_name(file: str) -> str:
    """Returns the patient that a file's name starts with: what comes before the first ``_`` or ``.``."""
    return re.split(r"[_.]", PurePosixPath(file).name)[0].strip()


def _identities(frames: Iterable[Frame], images: Iterable[SourceImage]) -> dict[str, str]:
    identities = {part: frame.patient for frame in frames for part in _name_parts(frame.name)}
    return (
        identities
        | {frame.patient: frame.patient for frame in frames}
        | {image.patient: image.patient for image in images}
    )


def _name_parts(name: str) -> Iterator[str]:
    return (part for part in re.split(r"[\^=,\s]+", name) if len(part) > 2)
