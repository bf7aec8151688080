"""Writes volumes as a hospital would hand them over: DICOM series and NIfTI files."""

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.uid import JPEG2000Lossless, MRImageStorage, RLELossless

from data_modules.simulate.dicom_header import SCANNERS, common_header, number_instance, save, uid
from data_modules.simulate.identity import Identity
from data_modules.simulate.tubes import Array

PIXEL_DATA = 0x7FE00010
STORED_MAXIMUM = 4095  # 12 bits
RLE_SHARE, JPEG2000_SHARE, OBLIQUE_SHARE = 0.25, 0.25, 0.35


def draw_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a patient's (3, 3) rotation in the scanner: none for most, a few degrees about each axis for the others."""
    angles = np.deg2rad(rng.uniform(-4, 4, 3)) * (rng.uniform() < OBLIQUE_SHARE)
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    return rotation


def patient_affine(
    shape: tuple[int, ...],
    voxel_mm: tuple[float, float, float],
    rotation: NDArray[np.float64],
    centre: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Map voxel indices (d, h, w) to DICOM patient coordinates (left, posterior, superior) in mm.

    Args:
        shape: (D, H, W).
        voxel_mm: Voxel size (D, H, W).
        rotation: (3, 3) rotation of the whole grid.
        centre: (3,) position of the grid's centre.

    Returns:
        (4, 4) affine; without rotation D runs to the left, H inferiorly, W posteriorly.
    """
    axes = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # columns: D, H, W
    affine = np.eye(4)
    affine[:3, :3] = rotation @ axes @ np.diag(voxel_mm)
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def write_mr_series(
    volume: Array,
    voxel_mm: tuple[float, float, float],
    folder: Path,
    identity: Identity,
    seed: int,
    patient: int,
    site: int,
    rng: np.random.Generator,
) -> Path:
    """Write a volume as a series of sagittal MR images.

    The names of the files say nothing about the slices' order; a quarter of the series is compressed as RLE, a quarter
    as lossless JPEG 2000.

    Args:
        volume: (D, H, W) float32 in [0, 1].
        voxel_mm: Voxel size (D, H, W).
        folder: Folder of all patients; the series goes below.
        identity: Whose it is.
        seed: Cohort seed.
        patient: Patient index.
        site: Site index; decides the scanner's name, not its picture.
        rng: Generator of the patient's HOSPITAL stream.

    Returns:
        Folder of the series.
    """
    affine = patient_affine(volume.shape, voxel_mm, draw_rotation(rng), rng.uniform(-25, 25, 3))
    slope = (1.0, 0.5, 1.0, 2.0)[site % 4]
    stored = np.rint(volume * (0.9 * STORED_MAXIMUM)).astype(np.uint16)
    compression = rng.uniform()
    names = rng.permutation(len(volume))
    manufacturer, model, field = SCANNERS[site % len(SCANNERS)]
    series = folder / identity.patient_id / f"MR{identity.study_date}" / "0004_T2_TSE_SAG"
    series.mkdir(parents=True)
    row, column = affine[:3, 2] / voxel_mm[2], affine[:3, 1] / voxel_mm[1]
    image = common_header(identity, seed, patient, "MR", MRImageStorage)
    image.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM"]
    image.Manufacturer, image.ManufacturerModelName = manufacturer, model
    image.InstitutionName, image.StationName = f"Simulated Hospital {site}", f"MR{site:02d}"
    image.MagneticFieldStrength = field
    image.SeriesDescription = image.ProtocolName = "T2 TSE sag"
    image.ScanningSequence, image.SequenceVariant, image.MRAcquisitionType = "SE", "SK", "2D"
    image.RepetitionTime, image.EchoTime, image.EchoTrainLength = 4200 + 300 * site, 96 + 2 * site, 16
    image.PatientPosition = "HFS"
    image.FrameOfReferenceUID = uid(seed, patient, "MR", "frame of reference")
    image.ImageOrientationPatient = [round(float(c), 8) for c in (*row, *column)]
    image.PixelSpacing = [round(voxel_mm[1], 8), round(voxel_mm[2], 8)]
    image.SliceThickness = round(0.9 * voxel_mm[0], 4)  # a tenth of the spacing is gap between the slices
    image.SpacingBetweenSlices = round(voxel_mm[0], 8)
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = stored.shape[1:]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = slope, 0, "US"
    image.WindowCenter, image.WindowWidth = slope * 1600, slope * 3200
    for index, pixels in enumerate(stored):
        # One header serves all slices; compressing one changes the syntax and the kind of its pixel data.
        number_instance(image, seed, patient, index + 1)
        position = affine[:3, 3] + index * affine[:3, 0]
        image.ImagePositionPatient = [round(float(p), 6) for p in position]
        image.SliceLocation = round(float(position[0]), 4)
        image["PixelData"] = DataElement(PIXEL_DATA, "OW", pixels.tobytes())
        if compression < RLE_SHARE:
            image.compress(RLELossless, generate_instance_uid=False)
        elif compression < RLE_SHARE + JPEG2000_SHARE:
            image.compress(JPEG2000Lossless, generate_instance_uid=False)
        save(image, series / f"IM{names[index]:04d}.dcm")
    return series


def write_nifti(
    volume: Array,
    voxel_mm: tuple[float, float, float],
    folder: Path,
    identity: Identity,
    rng: np.random.Generator,
) -> Path:
    """Write a volume as a compressed NIfTI file, its axes in a random order and direction.

    Args:
        volume: (D, H, W) float32 in [0, 1].
        voxel_mm: Voxel size (D, H, W).
        folder: Where to.
        identity: Whose it is.
        rng: Generator of the patient's HOSPITAL stream.

    Returns:
        The file; its affine is right for the order it is written in.
    """
    affine = patient_affine(volume.shape, voxel_mm, draw_rotation(rng), rng.uniform(-25, 25, 3))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # NIfTI counts to the right and anteriorly
    orientation = np.stack([rng.permutation(3), rng.choice([-1, 1], 3)], axis=1)
    stored = np.rint(volume * (0.9 * STORED_MAXIMUM)).astype(np.int16)
    turned = apply_orientation(stored, orientation)
    image = nib.Nifti1Image(turned, affine @ inv_ornt_aff(orientation, volume.shape))
    image.header["descrip"] = f"{identity.name} {identity.birth_date}".encode()
    image.header.set_xyzt_units("mm")
    path = folder / f"{identity.patient_id}_t2_sag.nii.gz"
    nib.save(image, path)  # nibabel compresses at level 1
    return path
