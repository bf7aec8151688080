"""Which planes of a DICOM tree make up volumes, and which volume of a study is the one to use."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from data_modules.ingest.dicom import Frame
from data_modules.ingest.images import Rejection, SourceImage, UnusableError, describe_files
from data_modules.ingest.rules import SeriesRules, SeriesTraits, read_rules, weighting_of

SHEAR_TOLERANCE = 0.02  # sine of the angle between the stack and the slices' normal, about 1 degree


class UnsuitableError(UnusableError):
    """Nothing is wrong with it, but it is no volume of the pelvis."""


def find_volumes(
    frames: Iterable[Frame], rules: SeriesRules | None = None
) -> tuple[list[SourceImage], list[Rejection]]:
    """Groups planes into volumes: by series, orientation, size and, where positions repeat, echo time.

    Slices are sorted by their position along the normal. A volume must be MR and have enough evenly spaced slices; what
    the rules exclude is kept, but objected to. Without rules the shipped ones hold.
    """
    rules = rules or read_rules()
    by_series: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_series[frame.series or frame.file].append(frame)
    images, rejections = [], []
    for members in by_series.values():
        for stack in _stacks(members):
            try:
                images += [_volume(part, rules) for part in _by_echo(_sorted(stack, rules), rules)]
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


def _sorted(stack: list[Frame], rules: SeriesRules) -> list[Frame]:
    first = stack[0]
    if first.modality != "MR":
        raise UnsuitableError(f"modality {first.modality or 'unknown'}, not MR")
    if len(first.orientation) != 6 or len(first.spacing) != 2 or any(len(frame.position) != 3 for frame in stack):
        raise UnusableError("its geometry is unknown: orientation, position or pixel spacing is missing")
    if len(stack) < rules.min_slices:
        raise UnsuitableError(f"too few slices ({len(stack)}): a volume needs at least {rules.min_slices}")
    return sorted(stack, key=lambda frame: (float(first.normal @ frame.position), frame.echo_time))


def _by_echo(stack: list[Frame], rules: SeriesRules) -> list[list[Frame]]:
    """The volumes of one stack: several, if each position was imaged at several echo times."""
    if not (np.diff(_positions(stack)) < 1e-3).any():
        return [stack]
    parts = [list(part) for _, part in groupby(sorted(stack, key=_echo_time), key=_echo_time)]
    if len(parts) == 1 or any(len(part) < rules.min_slices for part in parts):
        raise UnusableError("slices share a position: several phases, b-values or copies in one series")
    return parts


def _echo_time(frame: Frame) -> float:
    return frame.echo_time


def _volume(stack: list[Frame], rules: SeriesRules) -> SourceImage:
    first = stack[0]
    gaps = np.diff(_positions(stack))
    typical = float(np.median(gaps)) if len(gaps) else first.thickness
    if not typical > 0:
        raise UnusableError("a single slice of unknown thickness")
    if (gaps < 1e-3).any():
        raise UnusableError("slices share a position: several phases, b-values or copies in one series")
    if (np.abs(gaps - typical) > rules.spacing_tolerance * typical).any():
        raise UnusableError(f"slices are missing or uneven: {gaps.min():.2f} to {gaps.max():.2f} mm apart")
    across = np.array(stack[-1].position) - first.position
    if np.linalg.norm(np.cross(across, first.normal)) > SHEAR_TOLERANCE * np.linalg.norm(across):
        raise UnusableError("a sheared stack: its slices are not aligned along their normal (gantry tilt)")
    if len({frame.inverted for frame in stack}) > 1:
        raise UnusableError("low values are bright in some of its slices (MONOCHROME1) and dark in others")
    weighting, known_by = weighting_of(first.description, first.echo_time, first.repetition_time)
    traits = SeriesTraits(
        description=first.description,
        image_type="\\".join(first.image_type),
        manufacturer=first.manufacturer,
        weighting=weighting,
        plane=("sagittal", "coronal", "axial")[int(np.abs(first.normal).argmax())],
        slices=len(stack),
        gap=typical,
    )
    place, rule = rules.preferred(traits)
    choice: dict[str, str | int] = {"rule": rule, "weighting": weighting or "unknown", "plane": traits.plane}
    choice |= {"slices": len(stack), **({"weighting_by": known_by} if known_by else {})}
    return SourceImage(
        files=tuple(frame.file for frame in stack),
        frames=tuple(frame.index for frame in stack),
        format="dicom",
        affine=tuple(map(tuple, series_affine(stack).tolist())),
        patient=first.patient or first.study,
        study=first.study or first.series,
        series=first.series,
        inverted=first.inverted,
        preference=(place, len(stack), -max(first.spacing), _contrast(weighting, first.echo_time)),
        objection=rules.objection(traits),
        choice=choice,
    )


def _contrast(weighting: str, echo_time: float) -> float:
    """How well an echo time in ms suits a weighting: for T2 the longer the better, for T1 the shorter."""
    if weighting == "T1":
        return -echo_time if echo_time > 0 else -math.inf
    return echo_time if weighting == "T2" else 0.0


def series_affine(stack: Sequence[Frame]) -> np.ndarray:
    """Returns the affine (4, 4) from (slice, row, column) to RAS coordinates in mm, of planes in order of position."""
    first, last = stack[0], stack[-1]
    affine = np.eye(4)
    if len(stack) > 1:
        affine[:3, 0] = (np.array(last.position) - first.position) / (len(stack) - 1)
    else:
        affine[:3, 0] = first.normal * first.thickness
    affine[:3, 1] = np.array(first.orientation[3:]) * first.spacing[0]
    affine[:3, 2] = np.array(first.orientation[:3]) * first.spacing[1]
    affine[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM's axes are LPS


def _positions(stack: Sequence[Frame]) -> np.ndarray:
    return np.array([stack[0].normal @ frame.position for frame in stack])


def _source(stack: Sequence[Frame]) -> str:
    return describe_files(tuple(dict.fromkeys(frame.file for frame in stack)))
