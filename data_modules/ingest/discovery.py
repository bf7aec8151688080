"""Finds the images of a source folder."""

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from data_modules.ingest import nifti, video
from data_modules.ingest.concealing import identifiers_in
from data_modules.ingest.dicom import Frame, scan_files
from data_modules.ingest.folders import patient_of_name
from data_modules.ingest.frames import BESIDE, frame_folders, why_no_clip
from data_modules.ingest.images import Rejection, SourceImage, describe_files
from data_modules.ingest.rules import SeriesRules, SeriesTraits, weighting_of
from data_modules.ingest.series import find_volumes
from data_modules.ingest.workers import Map


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
    images += [_nifti_image(file, rules) for file in volumes]
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


def _nifti_image(file: str, rules: SeriesRules) -> SourceImage:
    name = PurePosixPath(file).name
    weighting, _ = weighting_of(name)
    traits = SeriesTraits(description=name, weighting=weighting)
    place, rule = rules.preferred(traits)
    return SourceImage(
        (file,),
        "nifti",
        patient_of_name(file),
        file,
        preference=(place,),
        objection=rules.objection(traits),
        choice={"rule": rule, "weighting": weighting or "unknown"},
    )


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
