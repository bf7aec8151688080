"""A case: planned from what was found, read, brought to the cohort's form, stored."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.cohort import Modality
from data_modules.duplicates import describe_content
from data_modules.ingest.confidentiality import Concealment, describe_header
from data_modules.ingest.continuity import number_cases
from data_modules.ingest.dicom import read_series
from data_modules.ingest.geometry import check_geometry
from data_modules.ingest.images import Rejection, SourceImage, UnusableError
from data_modules.ingest.masks import find_middle
from data_modules.ingest.matching import MatchedImage
from data_modules.ingest.nifti import read_nifti
from data_modules.ingest.pseudonyms import Pseudonyms
from data_modules.ingest.video import read_clip
from data_modules.store import is_whole, read_record, write_array

BURNED_IN = "the DICOM header says that text is burned into the picture: look at it"
FORMAT = 3  # raised when the same source would be stored otherwise, so that it is made anew


@dataclass(frozen=True)
class Case:
    """A case to make: all that a process needs.

    Attributes:
        match: The image with its patient and label.
        case_id: Pseudonymous.
        patient_id: Pseudonymous.
        source: The source folder.
        target: The array's file.
        parameters: Of the reader, e.g. ``shape`` and, for MRI, ``spacing``.
        concealment: Of the patient's dates and site.
        record: What is known beforehand of the record beside the array.
    """

    match: MatchedImage
    case_id: str
    patient_id: str
    source: Path
    target: Path
    parameters: dict[str, Any]
    concealment: Concealment
    record: dict[str, Any]


def plan_cases(
    modality: Modality,
    source: Path,
    out: Path,
    matches: Sequence[MatchedImage],
    parameters: dict[str, Any],
    pseudonyms: Pseudonyms,
    public_set: str = "",
) -> list[Case]:
    """Returns the cases to make, in the order of the source, in which each patient's are numbered.

    An image that is stored already keeps its number, so that what was predicted for a case goes on to be of that image.
    """
    images = []
    for match in sorted(matches, key=lambda match: (match.image.files, match.image.frames)):
        image = match.image
        stem = "-".join([modality, *filter(None, [public_set]), pseudonyms.patient(match.patient)])
        states = [(file, *_state(source / file)) for file in dict.fromkeys((*image.files, *image.masks))]
        chosen_from = match.alternatives if image.choice else 1  # else new files would change what is used anyway
        how = (image.frames, image.zooms, chosen_from, sorted(parameters.items()))
        inverted = ["inverted"] if image.inverted else []
        record: dict[str, Any] = {
            "fingerprint": pseudonyms.digest(FORMAT, states, how, *inverted),
            "place": _place_mark(pseudonyms, image),
        }
        if image.series:
            record["series"] = series_mark(pseudonyms, image.series)
        if image.choice:
            record["choice"] = {"series_in_study": match.alternatives, **image.choice}
        images.append((stem, match, record))
    cases = []
    numbers = number_cases(out / modality, [(stem, record) for stem, _, record in images])
    for (stem, match, record), number in zip(images, numbers, strict=True):
        case_id = f"{stem}-{number}"
        target = out / modality / f"{case_id}.npy"
        patient_id, concealment = pseudonyms.patient(match.patient), pseudonyms.concealment(match.patient)
        record = {"case_id": case_id, "parameters": parameters, **record}
        cases.append(Case(match, case_id, patient_id, source, target, parameters, concealment, record))
    return cases


def series_mark(pseudonyms: Pseudonyms, series: str) -> str:
    """Returns what stands for a DICOM series in records."""
    return pseudonyms.digest("series", series)[:16]


def _place_mark(pseudonyms: Pseudonyms, image: SourceImage) -> str:
    """What stands in records for the file, or the folder of pictures, that an image lies in, whatever it holds now."""
    place = image.study if image.format == "frames" else image.files[0]
    return pseudonyms.digest("place", place, image.frames[:1], image.series)[:16]


def is_stored(case: Case) -> bool:
    """Tells whether the case was made before, from the same files and with the same parameters, and is whole."""
    record = read_record(case.target)
    return record is not None and record.get("fingerprint") == case.record["fingerprint"] and is_whole(case.target)


def make_case(case: Case) -> Rejection | None:
    """Reads, prepares and stores a case.

    Returns:
        None, or why it could not be made.

    Raises:
        OSError: The cohort cannot be written to.
        MemoryError: It takes more than this process may have.
    """
    image = case.match.image
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries quote headers in them
            array, record = _READERS[image.format](case)
    except MemoryError:
        raise
    except UnusableError as error:
        return Rejection(image.source, error.reason, error.detail)
    except Exception as error:
        # a damaged file fails in any of the libraries' ways, and must not stop the others
        return Rejection(image.source, "cannot be read", f"{type(error).__name__}: {error}")
    array = np.ascontiguousarray(array)
    found = {"descriptor": describe_content(array), "sha256": hashlib.sha256(array.data).hexdigest()}
    write_array(case.target, array, {**case.record, **record, **found})
    return None


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _read_dicom(case: Case) -> tuple[np.ndarray, dict[str, Any]]:
    from data_modules.ingest.volume import to_grid  # MONAI takes seconds to import, and clips do without

    image = case.match.image
    volume, header = read_series(case.source, image.files, image.frames)
    affine = np.array(image.affine)
    checked = {"geometry_check": check_geometry(case.source, image.files, affine)}
    origin = describe_header(header, case.concealment) | checked
    centre, remarks = find_middle([case.source / mask for mask in image.masks], volume.shape, affine)
    if str(header.get("BurnedInAnnotation") or "").strip().upper() == "YES":
        remarks = [*remarks, BURNED_IN]
    array, record = to_grid(volume, affine, centre=centre, **case.parameters)
    if image.inverted:
        record["steps"].insert(0, {"step": "turn around", "from": "MONOCHROME1"})
    return array, {"source": origin, **record} | ({"warnings": remarks} if remarks else {})


def _read_nifti(case: Case) -> tuple[np.ndarray, dict[str, Any]]:
    from data_modules.ingest.volume import to_grid

    image = case.match.image
    volume, affine, origin = read_nifti(case.source / image.files[0], image.zooms)
    centre, remarks = find_middle([case.source / mask for mask in image.masks], volume.shape, affine)
    array, record = to_grid(volume, affine, centre=centre, **case.parameters)
    return array, {"source": origin, **record} | ({"warnings": remarks} if remarks else {})


def _read_clip(case: Case) -> tuple[np.ndarray, dict[str, Any]]:
    files = [case.source / file for file in case.match.image.files]
    return read_clip(files, concealment=case.concealment, **case.parameters)


_READERS = {"dicom": _read_dicom, "nifti": _read_nifti, "video": _read_clip, "frames": _read_clip}
