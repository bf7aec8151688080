from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import Dataset
from pydicom.pixels import convert_color_space
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless, RLELossless

from data_modules.ingest.images import UnusableError
from data_modules.ingest.video import fit, frame_times, grey_frames, nearest_in_time, read_clip, ultrasound_region

WriteCine = Callable[..., Path]
FULL = (20, 60, 80)  # as the frames are, so nothing is scaled or left out


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R BT.601."""
    return rgb.astype(float) @ [0.299, 0.587, 0.114]


def region(left: int, top: int, right: int, bottom: int, kind: tuple[int, int] = (1, 1)) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = kind
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    return item


def test_a_video_keeps_its_frames_in_order(
    tmp_path: Path, write_avi: Callable[..., Path], moving_frames: np.ndarray
) -> None:
    clip, record = read_clip([write_avi(tmp_path / "a.avi", moving_frames)], FULL)
    assert np.abs(clip.astype(float) - moving_frames).mean() < 2  # motion JPEG is lossy
    assert record["original"] == {"size": [60, 80], "frames": 20, "duration_s": 0.95}


@pytest.mark.parametrize("compress", [None, RLELossless, JPEG2000Lossless])
def test_grey_cine_is_read_exactly(
    tmp_path: Path, write_cine: WriteCine, moving_frames: np.ndarray, compress: str
) -> None:
    clip, _ = read_clip([write_cine(tmp_path / "a.dcm", moving_frames, compress=compress)], FULL)
    np.testing.assert_array_equal(clip, moving_frames)


def test_inverted_grey_is_turned_back(tmp_path: Path, write_cine: WriteCine, moving_frames: np.ndarray) -> None:
    clip, _ = read_clip([write_cine(tmp_path / "a.dcm", 255 - moving_frames, "MONOCHROME1")], FULL)
    np.testing.assert_array_equal(clip, moving_frames)


@pytest.mark.parametrize(
    ("photometric", "compress"), [("RGB", None), ("RGB", RLELossless), ("YBR_FULL", None), ("YBR_FULL", RLELossless)]
)
def test_colours_become_luma(
    tmp_path: Path, write_cine: WriteCine, moving_frames: np.ndarray, photometric: str, compress: str
) -> None:
    rgb = np.stack([moving_frames, np.roll(moving_frames, 9, 1), np.roll(moving_frames, 9, 2)], -1)
    stored = rgb if photometric == "RGB" else convert_color_space(rgb, "RGB", photometric)
    clip, _ = read_clip([write_cine(tmp_path / "a.dcm", stored, photometric, compress=compress)], FULL)
    assert np.abs(clip - luma(rgb)).max() <= 2  # rounding, once each way


def test_palette_colours_are_looked_up(bundled: Callable[[str], Path]) -> None:
    dataset = pydicom.dcmread(bundled("examples_palette.dcm"))
    (grey,) = grey_frames(dataset)
    tables = [
        np.frombuffer(dataset[f"{name}PaletteColorLookupTableData"].value, "<u2") for name in ("Red", "Green", "Blue")
    ]
    rgb = np.stack([table[dataset.pixel_array] for table in tables], -1) / 65535 * 255
    assert np.abs(grey - luma(rgb)).max() <= 2


@pytest.mark.parametrize("name", ["examples_ybr_color.dcm", "examples_rgb_color.dcm"])
def test_real_ultrasound_has_the_grey_values_that_simpleitk_decodes(bundled: Callable[[str], Path], name: str) -> None:
    file = bundled(name)
    first = next(iter(grey_frames(pydicom.dcmread(file))))
    decoded = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))[0]  # colours, converted to RGB
    assert decoded.shape[-1] == 3
    error = np.abs(first - luma(decoded))
    assert np.percentile(error, 99) <= 2
    assert error.mean() < 1


def test_a_real_cine_is_cropped_to_its_ultrasound_region(bundled: Callable[[str], Path]) -> None:
    file = bundled("examples_ybr_color.dcm")
    clip, record = read_clip([file], (16, 64, 64))
    assert clip.shape == (16, 64, 64)
    assert record["original"]["frames"] == 30
    top, bottom, left, right = ultrasound_region(pydicom.dcmread(file))
    assert record["steps"][0]["top_bottom_left_right"] == [top, bottom, left, right]


def test_the_largest_2d_tissue_region_is_cut_out(
    tmp_path: Path, write_cine: WriteCine, moving_frames: np.ndarray
) -> None:
    regions = [region(0, 0, 79, 59, (3, 1)), region(2, 2, 11, 11), region(10, 5, 69, 54), region(0, 0, 79, 59, (1, 2))]
    file = write_cine(tmp_path / "a.dcm", moving_frames, SequenceOfUltrasoundRegions=Sequence(regions))
    clip, record = read_clip([file], (20, 50, 60))
    np.testing.assert_array_equal(clip, moving_frames[:, 5:55, 10:70])
    assert record["steps"][0]["step"] == "crop to the ultrasound region"


def test_aspect_is_kept_and_the_rest_is_black() -> None:
    frame = np.full((30, 60), 200, np.uint8)
    cv2.circle(frame, (30, 15), 10, 50, -1)
    out = fit(frame, (40, 40))
    assert (out[:10] == 0).all()
    assert (out[30:] == 0).all()
    assert (out[10:30] > 0).all()
    dark = np.argwhere((out > 0) & (out < 125))
    assert abs(np.ptp(dark[:, 0]) - np.ptp(dark[:, 1])) <= 1  # the disc is still round
    np.testing.assert_array_equal(fit(frame, (30, 60)), frame)


def test_frames_are_chosen_evenly_in_time_not_in_number() -> None:
    even = np.arange(33) * 50.0
    np.testing.assert_array_equal(nearest_in_time(even, 17), np.arange(0, 33, 2))
    uneven = np.array([0.0, 1, 2, 3, 4, 100])
    np.testing.assert_array_equal(nearest_in_time(uneven, 3), [0, 4, 5])
    np.testing.assert_array_equal(nearest_in_time(np.arange(4) * 50.0, 8), [0, 0, 1, 1, 2, 2, 3, 3])


def test_times_come_from_vector_frame_time_or_rate() -> None:
    dataset = Dataset()
    dataset.CineRate = 25
    np.testing.assert_allclose(frame_times(dataset, 3), [0, 40, 80])
    dataset.FrameTime = 20.0
    np.testing.assert_allclose(frame_times(dataset, 3), [0, 20, 40])
    dataset.FrameTimeVector = [0.0, 10.0, 50.0]
    np.testing.assert_allclose(frame_times(dataset, 3), [0, 10, 60])


def test_what_is_no_clip_is_rejected_with_its_reason(
    tmp_path: Path, write_cine: WriteCine, write_avi: Callable[..., Path], moving_frames: np.ndarray
) -> None:
    still = np.repeat(moving_frames[:1], 9, 0)
    cases = [
        (write_cine(tmp_path / "a.dcm", moving_frames[:1]), "1 frames, a clip needs at least 2"),
        (write_cine(tmp_path / "b.dcm", np.full_like(still, 9)), "a still image"),
        (write_cine(tmp_path / "c.dcm", still), "a still image"),
        (write_cine(tmp_path / "d.dcm", moving_frames, "XYZ"), "photometric interpretation XYZ"),
    ]
    (tmp_path / "e.avi").write_bytes(b"RIFF, but no video")
    (tmp_path / "f.avi").write_bytes(write_avi(tmp_path / "g.avi", moving_frames).read_bytes()[:300])
    whole = (tmp_path / "g.avi").read_bytes()
    (tmp_path / "h.avi").write_bytes(whole[: len(whole) // 2])
    cases += [(tmp_path / "h.avi", "ends early: [0-9]+ of 20 frames")]
    cases += [(tmp_path / "e.avi", "cannot be opened as a video"), (tmp_path / "f.avi", "cannot be opened|0 frames")]
    for file, reason in cases:
        with pytest.raises(UnusableError, match=reason):
            read_clip([file], (16, 32, 32))
