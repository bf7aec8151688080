"""Series of DICOM files to read: simulated ones, and the real ones that pydicom brings along."""

import shutil
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, generate_uid
from scipy.spatial.transform import Rotation

from data_modules.simulate.dicom_header import common_header, number_instance, save
from data_modules.simulate.identity import Identity
from data_modules.simulate.mri import simulate_volume
from data_modules.simulate.settings import SimulationSettings

STORED_MAXIMUM = 3600  # of 12 bits
SPACING = (4.4, 0.6, 0.7)  # mm between slices, rows, columns
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
PATIENT = Identity("H1234567", "ROE^JANE", "19800101", "20210704", 41)
SAGITTAL = np.array([[0.0, 1, 0], [0, 0, -1]])  # directions of the rows and of the columns, LPS
PLANES = {
    "sagittal": SAGITTAL,
    "axial": np.array([[1.0, 0, 0], [0, 1, 0]]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, -1]]),
    "oblique": Rotation.from_euler("xyz", [12, -17, 9], degrees=True).apply(SAGITTAL),
}
COMPRESSIONS = {
    "RLE": gdcm.TransferSyntax.RLELossless,
    "lossless JPEG": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "JPEG-LS": gdcm.TransferSyntax.JPEGLSLossless,
    "JPEG 2000": gdcm.TransferSyntax.JPEG2000Lossless,
}


@dataclass(frozen=True)
class Series:
    """Files and the truth about them.

    Attributes:
        name: As printed.
        folder: Of its files.
        volume: float32 (slices, rows, columns), rescaled, in the order of the slices' positions.
        corners: (slices, 4, 3) centres of each slice's first pixel, last of the first row, first of the last row, and
            last pixel, in RAS coordinates in mm.
        regular: Its slices are parallel and evenly spaced, so that an affine can be right.
    """

    name: str
    folder: Path
    volume: np.ndarray
    corners: np.ndarray
    regular: bool = True


def slice_corners(dataset: Dataset) -> np.ndarray:
    """Returns a slice's corners (4, 3), see `Series`, by the equation in DICOM PS3.3, C.7.6.2.1.1."""
    along_row, along_column = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
    between_rows, between_columns = map(float, dataset.PixelSpacing)
    right = along_row * between_columns * (dataset.Columns - 1)
    down = along_column * between_rows * (dataset.Rows - 1)
    first = np.array(dataset.ImagePositionPatient, dtype=float)
    return np.stack([first, first + right, first + down, first + right + down]) * LPS_TO_RAS


def planes(
    pixels: np.ndarray, directions: np.ndarray, slopes: Sequence[float] = (1.0,), instance: int = 1, **shared: Any
) -> list[Dataset]:
    """Returns a data set a slice of a volume uint16 (slices, rows, columns), numbered from an instance on."""
    normal = np.cross(*directions)
    series = generate_uid()  # unless ``shared`` names another
    datasets = []
    for index, plane in enumerate(pixels):
        image = common_header(PATIENT, 0, 0, "MR", MRImageStorage)
        number_instance(image, 0, 0, instance + index)
        image.SeriesInstanceUID = series
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM"]
        image.Manufacturer, image.SeriesDescription = "SIEMENS", "T2 TSE"
        image.AcquisitionNumber, image.RepetitionTime, image.EchoTime, image.PatientPosition = 1, 4200, 96, "HFS"
        image.ImageOrientationPatient = [round(float(value), 9) for value in np.ravel(directions)]
        position = np.array([-20.0, -30.0, 40.0]) + normal * SPACING[0] * index
        image.ImagePositionPatient = [round(float(value), 6) for value in position]
        image.PixelSpacing, image.SliceThickness, image.SpacingBetweenSlices = list(SPACING[1:]), 4.0, SPACING[0]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.Rows, image.Columns = plane.shape
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.RescaleSlope, image.RescaleIntercept = slopes[index % len(slopes)], 0
        image.PixelData = plane.tobytes()
        image["PixelData"].VR = "OW"
        for keyword, value in shared.items():
            setattr(image, keyword, value)
        datasets.append(image)
    return datasets


def truth(name: str, folder: Path, datasets: Sequence[Dataset], regular: bool = True) -> Series:
    """Returns the truth about uncompressed slices, given in the order of their positions."""
    values = [
        image.pixel_array * float(image.get("RescaleSlope", 1)) + float(image.get("RescaleIntercept", 0))
        for image in datasets
    ]
    corners = np.stack([slice_corners(image) for image in datasets])
    return Series(name, folder, np.stack(values).astype(np.float32), corners, regular)


def write(
    name: str, folder: Path, datasets: Sequence[Dataset], regular: bool = True, others: Sequence[Dataset] = ()
) -> Series:
    """Writes slices, and others that belong to another volume, under shuffled names; returns the truth of the first."""
    folder.mkdir(parents=True)
    names = np.random.default_rng(0).permutation(len(datasets) + len(others))
    for number, dataset in zip(names, [*datasets, *others], strict=True):
        save(dataset, folder / f"IM{number:04d}.dcm")
    return truth(name, folder, datasets, regular)


def compress(folder: Path, syntax: int) -> None:
    """Compresses the pixels of all files of a folder, in place."""
    for file in folder.iterdir():
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(file))
        if not reader.Read():
            raise OSError(f"gdcm cannot read {file}")
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        packed = file.with_suffix(".packed")
        writer.SetFileName(str(packed))
        writer.SetFile(reader.GetFile())
        if not change.Change():
            raise OSError(f"gdcm cannot compress {file}")
        writer.SetImage(change.GetOutput())
        if not writer.Write():
            raise OSError(f"gdcm cannot write {packed}")
        dataset, other = pydicom.dcmread(file), pydicom.dcmread(packed)
        dataset["PixelData"] = other["PixelData"]  # only the pixels: gdcm changes the header of MR objects
        dataset.file_meta.TransferSyntaxUID = other.file_meta.TransferSyntaxUID
        packed.unlink()
        save(dataset, file)


def enhanced(datasets: Sequence[Dataset], order: Sequence[int]) -> Dataset:
    """Returns one enhanced multi-frame object of slices, its frames in the given order."""
    image = deepcopy(datasets[0])
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    image.NumberOfFrames = len(order)
    image.PixelData = b"".join(datasets[index].PixelData for index in order)
    image.DimensionIndexSequence = [_item(DimensionIndexPointer=0x00209057, FunctionalGroupPointer=0x00209111)]
    values = _item(RescaleSlope=1.0, RescaleIntercept=0.0, RescaleType="US")
    shared = _item(
        PlaneOrientationSequence=[_item(ImageOrientationPatient=image.ImageOrientationPatient)],
        PixelMeasuresSequence=[_item(PixelSpacing=image.PixelSpacing, SliceThickness=image.SliceThickness)],
        MREchoSequence=[_item(EffectiveEchoTime=float(image.EchoTime))],
        MRTimingAndRelatedParametersSequence=[_item(RepetitionTime=float(image.RepetitionTime))],
        PixelValueTransformationSequence=[values],
    )
    image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [shared], []
    for index in order:
        content = _item(DimensionIndexValues=index + 1, InStackPositionNumber=index + 1, StackID="1")
        position = _item(ImagePositionPatient=datasets[index].ImagePositionPatient)
        groups = _item(FrameContentSequence=[content], PlanePositionSequence=[position])
        image.PerFrameFunctionalGroupsSequence.append(groups)
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(image, keyword)
    return image


def simulated_pixels(shape: tuple[int, int, int] = (24, 160, 144)) -> np.ndarray:
    """Returns a simulated volume as a scanner stores it, uint16 (slices, rows, columns)."""
    volume = simulate_volume(SimulationSettings(volume_shape=shape), 0, 0)
    return np.rint(volume * STORED_MAXIMUM).astype(np.uint16)


def regular(pixels: np.ndarray, folder: Path) -> Iterator[Series]:
    """Yields series of parallel, evenly spaced slices."""
    oblique = PLANES["oblique"]
    for plane, directions in PLANES.items():
        yield write(plane, folder / plane, planes(pixels, directions))
    for name, syntax in COMPRESSIONS.items():
        series = write(f"oblique, {name}", folder / name, planes(pixels, oblique))
        compress(series.folder, syntax)
        yield series
    yield write("another slope each slice", folder / "slopes", planes(pixels, oblique, slopes=(1.0, 0.5, 2.0)))
    copied = write("a file twice", folder / "copied", planes(pixels, oblique))
    shutil.copy(copied.folder / "IM0003.dcm", copied.folder / "copy.dcm")
    yield copied
    other = planes(pixels, PLANES["axial"], SeriesNumber=5)
    yield write("two series in a folder", folder / "two", planes(pixels, oblique), others=other)
    first = planes(pixels, oblique)
    after = {"instance": len(pixels) + 1, "SeriesInstanceUID": first[0].SeriesInstanceUID}
    late = planes(pixels[:, ::-1], oblique, **after, EchoTime=160, EchoNumbers=2)
    yield write("two echoes in a series", folder / "echoes", first, others=late)
    orders = {"in order": np.arange(len(pixels)), "shuffled": np.random.default_rng(1).permutation(len(pixels))}
    for name, order in orders.items():
        single, target = planes(pixels, oblique), folder / f"enhanced {name}"
        target.mkdir()
        save(enhanced(single, order.tolist()), target / "IM0000.dcm")
        yield truth(f"enhanced, frames {name}", target, single)


def irregular(pixels: np.ndarray, folder: Path) -> Iterator[Series]:
    """Yields series that no single affine describes, or not one whose axes are at right angles."""
    missing = planes(pixels, PLANES["oblique"])
    del missing[len(missing) // 2]
    yield write("a slice missing", folder / "missing", missing, regular=False)
    uneven, tilted = planes(pixels, PLANES["axial"]), planes(pixels, PLANES["axial"])
    uneven[len(uneven) // 2].ImagePositionPatient[2] += 0.4 * SPACING[0]
    yield write("a slice displaced", folder / "uneven", uneven, regular=False)
    for index, image in enumerate(tilted):
        image.ImagePositionPatient[1] += 1.0 * index
    yield write("a sheared stack (tilt)", folder / "tilted", tilted, regular=False)
    first = planes(pixels, PLANES["oblique"])
    after = {"instance": len(pixels) + 1, "SeriesInstanceUID": first[0].SeriesInstanceUID}
    again = planes(pixels[:, ::-1], PLANES["oblique"], **after, AcquisitionNumber=2)
    yield write("every place twice", folder / "phases", first, regular=False, others=again)


def real(folder: Path) -> Iterator[Series]:
    """Yields copies of the real series of four slices or more that pydicom brings along, labelled as MR."""
    bundled = Path(pydicom.__file__).parent / "data/test_files/dicomdirtests"
    for name, path, regular in (
        ("real CT, 5 slices", "98892001/CT5N", True),
        ("real CT, slices missing", "77654033/CT2", False),
        ("real MR, turning projections", "98892003/MR700", False),
    ):
        datasets = [pydicom.dcmread(file) for file in sorted((bundled / path).iterdir())]
        normal = np.cross(datasets[0].ImageOrientationPatient[:3], datasets[0].ImageOrientationPatient[3:])
        datasets.sort(key=lambda dataset: float(normal @ np.array(dataset.ImagePositionPatient, dtype=float)))
        for dataset in datasets:
            dataset.Modality = "MR"  # poddistill reads nothing else
        yield write(name, folder / path, datasets, regular)


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item
