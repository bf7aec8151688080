"""Which planes of a DICOM tree make up volumes, and which volume of a study is the one to use."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from data_modules.ingest.dicom import Frame
from data_modules.ingest.images import Rejection, SourceImage, UnusableError, describe_files

MIN_SLICES = 4
DERIVED = ("DERIVED", "SECONDARY")
SPACING_TOLERANCE = 0.05  # of the distance between slices
SHEAR_TOLERANCE = 0.02  # sine of the angle between the stack and the slices' normal, about 1 degree
LOCALISER = re.compile(r"locali[sz]er|\bloc\b|scout|survey", re.IGNORECASE)
NOT_T2 = re.compile(r"dwi|diff|adc|trace|\bt1|t2\*|t2star", re.IGNORECASE)
T2_ECHO_TIME, T2_REPETITION_TIME = 60.0, 1500.0  # ms, at least


class UnsuitableError(UnusableError):
    """Nothing is wrong with it, but it is no volume of the pelvis."""


def find_volumes(frames: Iterable[Frame]) -> tuple[list[SourceImage], list[Rejection]]:
    """Groups planes into volumes: by series, orientation, size and, where positions repeat, echo time.

    Slices are sorted by their position along the normal. A volume must be MR, have `MIN_SLICES` evenly spaced slices
    and no localiser; images derived from others are kept but objected to.
    """
    by_series: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_series[frame.series or frame.file].append(frame)
    images, rejections = [], []
    for members in by_series.values():
        for stack in _stacks(members):
            try:
                images += [_volume(part) for part in _by_echo(_sorted(stack))]
            except UnusableError as error:
                rejections.append(
                    Rejection(_source(stack), error.reason, defect=not isinstance(error, UnsuitableError))
                )
    return images, rejections


def _stacks(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Planes that are parallel and of one size; copies of a file under another name are dropped."""
    stacks: list[list[Frame]] = []
    seen = set()
    for frame in frames:
        if frame.instance and (frame.instance, frame.index) in seen:
            continue
        seen.add((frame.instance, frame.index))
        for stack in stacks:
            if _parallel(stack[0], frame):
                stack.append(frame)
                break
        else:
            stacks.append([frame])
    return stacks


def _parallel(one: Frame, other: Frame) -> bool:
    if (one.size, len(one.orientation), len(one.spacing)) != (other.size, len(other.orientation), len(other.spacing)):
        return False
    return bool(
        np.allclose(one.orientation, other.orientation, atol=0.01)
        and np.allclose(one.spacing, other.spacing, rtol=0.01)
    )


def _sorted(stack: list[Frame]) -> list[Frame]:
    first = stack[0]
    if first.modality != "MR":
        raise UnsuitableError(f"modality {first.modality or 'unknown'}, not MR")
    if "LOCALIZER" in first.image_type or LOCALISER.search(first.description):
        raise UnsuitableError("a localiser")
    if len(first.orientation) != 6 or len(first.spacing) != 2 or any(len(frame.position) != 3 for frame in stack):
        raise UnusableError("its geometry is unknown: orientation, position or pixel spacing is missing")
    if len(stack) < MIN_SLICES:
        raise UnsuitableError(f"too few slices ({len(stack)}): a volume needs at least {MIN_SLICES}")
    return sorted(stack, key=lambda frame: (float(first.normal @ frame.position), frame.echo_time))


def _by_echo(stack: list[Frame]) -> list[list[Frame]]:
    """The volumes of one stack: several, if each position was imaged at several echo times."""
    if not (np.diff(_positions(stack)) < 1e-3).any():
        return [stack]
    parts = [list(part) for _, part in groupby(sorted(stack, key=_echo_time), key=_echo_time)]
    if len(parts) == 1 or any(len(part) < MIN_SLICES for part in parts):
        raise UnusableError("slices share a position: several phases, b-values or copies in one series")
    return parts


def _echo_time(frame: Frame) -> float:
    return frame.echo_time


def _volume(stack: list[Frame]) -> SourceImage:
    first = stack[0]
    gaps = np.diff(_positions(stack))
    typical = float(np.median(gaps))
    if (gaps < 1e-3).any():
        raise UnusableError("slices share a position: several phases, b-values or copies in one series")
    if (np.abs(gaps - typical) > SPACING_TOLERANCE * typical).any():
        raise UnusableError(f"slices are missing or uneven: {gaps.min():.2f} to {gaps.max():.2f} mm apart")
    across = np.array(stack[-1].position) - first.position
    if np.linalg.norm(np.cross(across, first.normal)) > SHEAR_TOLERANCE * np.linalg.norm(across):
        raise UnusableError("a sheared stack: its slices are not aligned along their normal (gantry tilt)")
    plane = ("sagittal", "coronal", "axial")[int(np.abs(first.normal).argmax())]
    t2 = _t2_evidence(first)
    return SourceImage(
        files=tuple(frame.file for frame in stack),
        frames=tuple(frame.index for frame in stack),
        format="dicom",
        affine=tuple(map(tuple, series_affine(stack).tolist())),
        patient=first.patient or first.study,
        study=first.study or first.series,
        series=first.series,
        preference=(bool(t2), plane == "sagittal", len(stack), -max(first.spacing)),
        objection="an image derived from others" if first.image_type[:2] == DERIVED else "",
        choice={"t2_by": t2 or "no evidence", "plane": plane, "slices": len(stack)},
    )


def series_affine(stack: Sequence[Frame]) -> np.ndarray:
    """Returns the affine (4, 4) from (slice, row, column) to RAS coordinates in mm, of planes in order of position."""
    first, last = stack[0], stack[-1]
    affine = np.eye(4)
    affine[:3, 0] = (np.array(last.position) - first.position) / (len(stack) - 1)
    affine[:3, 1] = np.array(first.orientation[3:]) * first.spacing[0]
    affine[:3, 2] = np.array(first.orientation[:3]) * first.spacing[1]
    affine[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM's axes are LPS


def _positions(stack: Sequence[Frame]) -> np.ndarray:
    return np.array([stack[0].normal @ frame.position for frame in stack])


def _t2_evidence(frame: Frame) -> str:
    if NOT_T2.search(frame.description):
        return ""
    if "t2" in frame.description.lower():
        return "series description"
    if frame.echo_time >= T2_ECHO_TIME and frame.repetition_time >= T2_REPETITION_TIME:
        return "echo and repetition time"
    return ""


def _source(stack: Sequence[Frame]) -> str:
    return describe_files(tuple(dict.fromkeys(frame.file for frame in stack)))
