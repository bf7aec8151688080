"""What of a DICOM header may leave the hospital."""

import datetime
import hmac
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from dicomanonymizer import anonymize_dataset
from dicomanonymizer.simpledicomanonymizer import initialize_actions
from pydicom import Dataset

PROFILE = "dicomfields_2026c"  # table E.1-1 of DICOM PS3.15, edition 2026c: Basic Application Confidentiality Profile
STUDY_DATE = (0x0008, 0x0020)
PERSONAL = (
    *("PatientName", "OtherPatientIDs", "OtherPatientNames", "PatientBirthDate", "PatientBirthName", "AccessionNumber"),
    *(
        "StudyDate",
        "SeriesDate",
        "AcquisitionDate",
        "ContentDate",
        "StudyID",
        "ReferringPhysicianName",
        "PerformingPhysicianName",
        "OperatorsName",
    ),
)
KEPT = {
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "field_strength": "MagneticFieldStrength",
    "sequence": "ScanningSequence",
    "variant": "SequenceVariant",
    "acquisition": "MRAcquisitionType",
    "echo_time_ms": "EchoTime",
    "repetition_time_ms": "RepetitionTime",
    "flip_angle_deg": "FlipAngle",
    "slice_thickness_mm": "SliceThickness",
    "slice_gap_mm": "SpacingBetweenSlices",
    "transducer": "TransducerType",
    "study_date": "StudyDate",
}


@dataclass(frozen=True)
class Concealment:
    """What conceals a patient's date and site.

    Attributes:
        days: By how many the patient's dates are shifted.
        site_key: Of the hash that stands for the institution.
    """

    days: int
    site_key: bytes


def describe_header(dataset: Dataset, concealment: Concealment | None = None) -> dict[str, Any]:
    """Returns what is kept of a header: compression, scanner, sequence, shifted study date, and the site's pseudonym.

    The header passes through the Basic Application Confidentiality Profile of DICOM PS3.15, with its option to retain
    longitudinal information with modified dates: all dates of a patient are shifted by the same number of days. Of what
    is left, a short list of technical attributes is kept, unless a name or number of the patient stands in one.

    Args:
        dataset: With or without pixels; it is not changed.
        concealment: The patient's; None: neither date nor site is kept.
    """
    header = Dataset()
    for keyword in KEPT.values():
        if keyword in dataset:
            header[keyword] = dataset[keyword]
    institution = str(dataset.get("InstitutionName") or "").strip().lower()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes headers in them
        anonymize_dataset(
            header,
            extra_anonymization_rules=concealment and {STUDY_DATE: partial(_shift, days=concealment.days)},
            base_rules_gen=_profile,
        )
    syntax = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    kept = {"format": "DICOM", "transfer_syntax": syntax.name if syntax else ""}
    kept |= {name: _plain(header.get(keyword)) for name, keyword in KEPT.items()}
    if institution and concealment:
        kept["site"] = f"site-{hmac.digest(concealment.site_key, institution.encode(), 'sha256').hex()[:6]}"
    personal = [part.lower() for text in personal_texts(dataset) for part in name_parts(text)]
    return {
        name: value
        for name, value in kept.items()
        if value not in (None, "", []) and not any(part in str(value).lower() for part in personal)
    }


def personal_texts(dataset: Dataset) -> tuple[str, ...]:
    """Returns the names, numbers and dates of a header that identify the patient or who examined her."""
    texts = [str(dataset[keyword].value) for keyword in ("PatientID", *PERSONAL) if dataset.get(keyword)]
    return tuple(text.strip() for text in texts if text.strip())


def name_parts(text: str) -> list[str]:
    """Returns the parts of a name that are long enough to be told from other words."""
    return [part for part in re.split(r"[\^=,;\\\s]+", text) if len(part) > 2]


def _profile() -> dict[tuple[int, ...], Callable[..., None]]:
    return dict(_actions())


@cache
def _actions() -> dict[tuple[int, ...], Callable[..., None]]:
    return initialize_actions(PROFILE)


def _shift(dataset: Dataset, tag: tuple[int, int], days: int) -> None:
    """Moves a date; one that is none is emptied."""
    if tag not in dataset:
        return
    try:
        date = datetime.datetime.strptime(str(dataset[tag].value), "%Y%m%d").date()
        dataset[tag].value = (date + datetime.timedelta(days)).strftime("%Y%m%d")
    except (ValueError, OverflowError):
        dataset[tag].value = ""


def _plain(value: Any) -> Any:
    """A header's value as JSON has it."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str):
        return value.strip()
    if hasattr(value, "__iter__"):
        return [_plain(part) for part in value]
    return float(value)
