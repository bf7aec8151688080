"""Invented personal data, so that the written files carry what a hospital's files carry and an importer must strip."""

from dataclasses import dataclass

import numpy as np

FAMILY_NAMES = (
    "AALTO",
    "BIANCHI",
    "CHOWDHURY",
    "DUBOIS",
    "ERIKSEN",
    "FERREIRA",
    "GRUBER",
    "HORVAT",
    "IBRAHIM",
    "JANSEN",
    "KOWALSKA",
    "LINDT",
)
GIVEN_NAMES = (
    "ADA",
    "BEATRIZ",
    "CLARA",
    "DILEK",
    "EMMA",
    "FATIMA",
    "GRETA",
    "HANNA",
    "INES",
    "JOANA",
    "KATARINA",
    "LEILA",
)
STUDY_YEAR = 2021


@dataclass(frozen=True)
class Identity:
    """Direct identifiers of one patient; all invented.

    Attributes:
        patient_id: The hospital's number, such as "H4831207"; tells nothing of label or order.
        name: DICOM person name, family^given.
        birth_date: YYYYMMDD.
        study_date: YYYYMMDD.
        age: Years.
    """

    patient_id: str
    name: str
    birth_date: str
    study_date: str
    age: int


def hospital_number(seed: int, patient: int) -> str:
    """Hospital number of a patient, unique within a cohort."""
    # The factor shares no divisor with 9,000,000, so the map is one to one.
    return f"H{1_000_000 + (7_368_787 * (patient + 1) + 104_729 * seed) % 9_000_000}"


def draw_identity(rng: np.random.Generator, seed: int, patient: int, age: int) -> Identity:
    """Invent a patient's personal data.

    Args:
        rng: Generator of the patient's HOSPITAL stream.
        seed: Cohort seed.
        patient: Patient index.
        age: In years.

    Returns:
        The identity.
    """
    family, given = rng.choice(FAMILY_NAMES), rng.choice(GIVEN_NAMES)
    month, day, study_month, study_day = (int(n) for n in rng.integers(1, [13, 29, 13, 29]))
    born = STUDY_YEAR - age - int((month, day) > (study_month, study_day))
    return Identity(
        patient_id=hospital_number(seed, patient),
        name=f"{family}^{given}",
        birth_date=f"{born}{month:02d}{day:02d}",
        study_date=f"{STUDY_YEAR}{study_month:02d}{study_day:02d}",
        age=age,
    )
