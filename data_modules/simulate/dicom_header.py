"""What every simulated DICOM object has in common: patient, study, equipment and file header."""

from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from data_modules.simulate.identity import Identity

SCANNERS = (
    ("SIEMENS", "MAGNETOM Aera", 1.5),
    ("GE MEDICAL SYSTEMS", "SIGNA Architect", 3.0),
    ("Philips Medical Systems", "Ingenia", 1.5),
    ("SIEMENS", "MAGNETOM Skyra", 3.0),
)
ULTRASOUND_MACHINES = (("GE Healthcare", "Voluson E10"), ("SAMSUNG MEDISON", "WS80A"), ("Philips", "EPIQ 7"))


def uid(*sources: object) -> UID:
    """Build a unique identifier that depends on the sources alone."""
    return generate_uid(entropy_srcs=[str(source) for source in sources])


def common_header(identity: Identity, seed: int, patient: int, modality: str, sop_class: UID, instance: int) -> Dataset:
    """Start a DICOM object.

    Args:
        identity: The patient's personal data, which go into the header as a hospital's would.
        seed: Cohort seed, part of every UID.
        patient: Patient index, part of every UID.
        modality: "MR" or "US".
        sop_class: SOP class UID.
        instance: Number of the object within the series, from 1.

    Returns:
        A data set with file meta information, patient, study and series.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid(seed, patient, modality, "instance", instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = Dataset()
    header.file_meta = meta
    header.SpecificCharacterSet = "ISO_IR 100"
    header.SOPClassUID = meta.MediaStorageSOPClassUID
    header.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    header.StudyInstanceUID = uid(seed, patient, modality, "study")
    header.SeriesInstanceUID = uid(seed, patient, modality, "series")
    header.InstanceNumber = instance
    header.SeriesNumber = 4
    header.Modality = modality
    header.PatientID = identity.patient_id
    header.PatientName = identity.name
    header.PatientBirthDate = identity.birth_date
    header.PatientSex = "F"
    header.PatientAge = f"{identity.age:03d}Y"
    header.StudyDate = header.SeriesDate = header.ContentDate = identity.study_date
    header.StudyTime = header.ContentTime = "101500"
    header.StudyID = identity.patient_id[1:]
    header.AccessionNumber = f"A{identity.patient_id[1:]}"
    header.InstitutionName = "Simulated Hospital"
    header.ReferringPhysicianName = "REFERRING^DOCTOR"
    header.BodyPartExamined = "PELVIS"
    return header


def save(header: Dataset, path: Path) -> None:
    """Write a DICOM file with its preamble."""
    header.save_as(path, enforce_file_format=True)
