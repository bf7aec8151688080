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


def common_header(identity: Identity, seed: int, patient: int, modality: str, sop_class: UID) -> Dataset:
    """Start the DICOM objects of a series.

    Args:
        identity: The patient's personal data, which go into the header as a hospital's would.
        seed: Cohort seed, part of every UID.
        patient: Patient index, part of every UID.
        modality: "MR" or "US".
        sop_class: SOP class UID.

    Returns:
        A data set with file meta information, patient, study and series; `number_instance` completes it.
    """
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = sop_class
    header.SpecificCharacterSet = "ISO_IR 100"
    header.SOPClassUID = sop_class
    header.StudyInstanceUID = uid(seed, patient, modality, "study")
    header.SeriesInstanceUID = uid(seed, patient, modality, "series")
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


def number_instance(header: Dataset, seed: int, patient: int, instance: int) -> None:
    """Make a data set the given instance (from 1) of its series, uncompressed, in place."""
    header.InstanceNumber = instance
    header.SOPInstanceUID = uid(seed, patient, header.Modality, "instance", instance)
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def save(header: Dataset, path: Path) -> None:
    """Write a DICOM file with its preamble."""
    header.save_as(path, enforce_file_format=True)
