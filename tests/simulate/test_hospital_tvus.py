import cv2
import numpy as np
import pydicom
import pytest

from data_modules.simulate.hospital_tvus import write_avi, write_clip
from data_modules.simulate.identity import Identity
from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.tvus import simulate_clip

IDENTITY = Identity("H1234567", "LINDT^ADA", "19850228", "20210611", 36)
KINDS = {
    "Explicit VR Little Endian": 0,
    "RLE Lossless": 0,
    "JPEG Baseline (Process 1)": 4,  # mean error allowed, in grey levels
}


@pytest.fixture(scope="module")
def clip():
    return simulate_clip(SimulationSettings(clip_shape=(8, 48, 64)), 0, 1)


def test_avi_gives_the_clip_back(clip, tmp_path):
    capture = cv2.VideoCapture(str(write_avi(clip, 2.0, tmp_path / "clip.avi")))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(4)
    frames = []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY))
    assert np.shape(frames) == clip.shape
    assert np.abs(np.array(frames, float) - clip).mean() < 4


def test_dicom_cine_loops_give_the_clip_back_in_their_region(clip, tmp_path):
    seen = set()
    for seed in range(24):
        rng = np.random.default_rng(seed)
        path = write_clip(clip, (1.25, 1.0), 2.0, tmp_path, IDENTITY, 0, 1, rng)
        if path.suffix == ".avi":
            continue
        image = pydicom.dcmread(path)
        kind = image.file_meta.TransferSyntaxUID.name
        seen.add(kind)
        region = image.SequenceOfUltrasoundRegions[0]
        rows = slice(region.RegionLocationMinY0, region.RegionLocationMaxY1 + 1)
        columns = slice(region.RegionLocationMinX0, region.RegionLocationMaxX1 + 1)
        pixels = image.pixel_array
        if pixels.ndim == 4:
            assert image.PhotometricInterpretation == "YBR_FULL_422"
            pixels = pixels.mean(axis=-1)
        picture = pixels[:, rows, columns].astype(float)
        assert picture.shape == clip.shape
        assert np.abs(picture - clip).mean() <= KINDS[kind]
        assert pixels[0, : rows.start].max() > 100  # the burnt-in name lies outside the region
        assert (10 * region.PhysicalDeltaY, 10 * region.PhysicalDeltaX) == pytest.approx((1.25, 1.0))
        assert image.FrameTime == pytest.approx(250)
        assert image.PatientName == IDENTITY.name
    assert seen == set(KINDS)
