"""Writes clips as a hospital would hand them over: AVI files and DICOM ultrasound cine loops."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit, RLELossless, UltrasoundMultiFrameImageStorage

from data_modules.simulate.dicom_header import ULTRASOUND_MACHINES, common_header, number_instance, save
from data_modules.simulate.identity import Identity

AVI_SHARE, RLE_SHARE, JPEG_SHARE = 0.5, 0.15, 0.2
# Pixels around the picture in DICOM; whole JPEG blocks, so that the caption does not bleed into the picture.
BORDER = 16

Clip = NDArray[np.uint8]


def write_clip(
    clip: Clip,
    pixel_mm: tuple[float, float],
    duration: float,
    folder: Path,
    identity: Identity,
    seed: int,
    patient: int,
    rng: np.random.Generator,
) -> Path:
    """Write a clip as AVI or as a DICOM cine loop, compressed or not.

    Args:
        clip: (T, H, W) uint8.
        pixel_mm: Size of a pixel (H, W).
        duration: In s.
        folder: Where to.
        identity: Whose it is.
        seed: Cohort seed.
        patient: Patient index.
        rng: Generator of the patient's HOSPITAL stream.

    Returns:
        The file.
    """
    kind = rng.uniform()
    if kind < AVI_SHARE:
        return write_avi(clip, duration, folder / f"{identity.patient_id}_sliding.avi")
    cine = _cine_loop(clip, pixel_mm, duration, identity, seed, patient, rng)
    if kind < AVI_SHARE + RLE_SHARE:
        cine.compress(RLELossless, generate_instance_uid=False)
    elif kind < AVI_SHARE + RLE_SHARE + JPEG_SHARE:
        _compress_jpeg(cine)
    path = folder / f"{identity.patient_id}_US{identity.study_date}.dcm"
    save(cine, path)
    return path


def write_avi(clip: Clip, duration: float, path: Path) -> Path:
    """Write a clip as motion JPEG; arguments as in `write_clip`."""
    frames, height, width = clip.shape
    # OpenCV brings FFmpeg along; its own MJPEG encoder fails on steep contrasts.
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), frames / duration, (width, height), False
    )
    for frame in clip:
        writer.write(frame)
    writer.release()
    if not path.is_file():
        raise OSError(f"{path}: OpenCV could not write the video")
    return path


def _cine_loop(
    clip: Clip,
    pixel_mm: tuple[float, float],
    duration: float,
    identity: Identity,
    seed: int,
    patient: int,
    rng: np.random.Generator,
) -> Dataset:
    frames, height, width = clip.shape
    screen = np.zeros((frames, height + 2 * BORDER, width + 2 * BORDER), dtype=np.uint8)
    screen[:, BORDER:-BORDER, BORDER:-BORDER] = clip
    # A name burnt into the picture's border, as machines do; the region below says where the picture is.
    for frame in screen:
        cv2.putText(frame, f"{identity.name} {identity.birth_date}", (1, 9), cv2.FONT_HERSHEY_PLAIN, 0.5, 200)

    image = common_header(identity, seed, patient, "US", UltrasoundMultiFrameImageStorage)
    number_instance(image, seed, patient, 1)
    image.ImageType = ["ORIGINAL", "PRIMARY", "GYN", "0001"]
    image.Manufacturer, image.ManufacturerModelName = ULTRASOUND_MACHINES[rng.integers(len(ULTRASOUND_MACHINES))]
    image.SeriesDescription = "TVUS sliding sign"
    image.NumberOfFrames = frames
    image.FrameTime = round(1000 * duration / frames, 4)
    image.FrameIncrementPointer = 0x00181063
    image.CineRate = image.RecommendedDisplayFrameRate = round(frames / duration)
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = screen.shape[1:]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.LossyImageCompression = "00"

    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0  # 2D, tissue
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = BORDER
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = BORDER + width - 1, BORDER + height - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # cm
    region.PhysicalDeltaX, region.PhysicalDeltaY = pixel_mm[1] / 10, pixel_mm[0] / 10
    image.SequenceOfUltrasoundRegions = Sequence([region])
    image.PixelData = screen.tobytes()
    return image


def _compress_jpeg(image: Dataset) -> None:
    """Turn a grey cine loop into baseline JPEG, YBR_FULL_422, in place."""
    frames = np.frombuffer(image.PixelData, np.uint8).reshape(image.NumberOfFrames, image.Rows, image.Columns)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422]
    encoded = [cv2.imencode(".jpg", cv2.cvtColor(f, cv2.COLOR_GRAY2BGR), quality)[1].tobytes() for f in frames]
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "YBR_FULL_422", 0
    image.LossyImageCompression = "01"
    image.LossyImageCompressionMethod = "ISO_10918_1"
    image.PixelData = encapsulate(encoded)
    image["PixelData"].VR = "OB"
    image.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
