from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from data_modules.ingest.cine import open_cine
from data_modules.ingest.container import open_video
from data_modules.ingest.sector import NOT_FOUND, Sector, find_sector, is_still, shrink, ultrasound_region
from data_modules.ingest.video import read_clip

DrawScreen = Callable[..., Any]


def region(left: int, top: int, right: int, bottom: int, kind: tuple[int, int] = (1, 1)) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = kind
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    return item


def header(*regions: Dataset) -> Dataset:
    dataset = Dataset()
    dataset.Rows, dataset.Columns, dataset.SequenceOfUltrasoundRegions = 60, 80, Sequence(regions)
    return dataset


def find(frames: np.ndarray) -> Sector:
    return find_sector([shrink(frame) for frame in frames], frames.shape[1:])


def kept_by(sector: Sector, shape: tuple[int, ...]) -> np.ndarray:
    """Bool (H, W): what `Sector.cut` keeps, laid back into the frame."""
    kept = np.zeros(shape, bool)
    top, bottom, left, right = sector.box
    kept[top:bottom, left:right] = sector.cut(np.full(shape, 255, np.uint8)) > 0
    return kept


def test_the_largest_2d_tissue_region_is_stated() -> None:
    small, large, spectrum, flow = (
        region(2, 2, 11, 11),
        region(10, 5, 69, 54),
        region(0, 0, 79, 59, (3, 1)),
        region(0, 0, 79, 59, (1, 2)),
    )
    assert ultrasound_region(header(spectrum, small, large, flow)) == (5, 55, 10, 70)
    assert ultrasound_region(header(region(10, 5, 80, 60))) == (5, 60, 10, 80)  # an end stated exclusive


def test_regions_that_are_not_of_this_frame_are_not_believed(bundled: Callable[[str], Path]) -> None:
    damaged = region(10, 5, 69, 54)
    del damaged.RegionLocationMaxX1
    for item in (damaged, region(10, 5, 9, 54), region(40, 20, 200, 150)):
        assert ultrasound_region(header(item)) is None
    assert ultrasound_region(Dataset()) is None
    # A real cine of 320 x 240 that states a region of 640 x 480: it was scaled after its header had been written.
    assert ultrasound_region(pydicom.dcmread(bundled("examples_ybr_color.dcm"))) is None


def test_a_stated_region_is_cut_out_unless_it_is_all_of_the_frame(tissue_frames: np.ndarray) -> None:
    samples = [shrink(frame) for frame in tissue_frames]
    sector = find_sector(samples, (60, 80), (5, 55, 10, 70))
    np.testing.assert_array_equal(sector.cut(tissue_frames[0]), tissue_frames[0, 5:55, 10:70])
    assert sector.describe() == {
        "step": "keep the ultrasound sector",
        "method": "DICOM region",
        "top_bottom_left_right": [5, 55, 10, 70],
        "share_of_frame": 0.625,
    }
    tissue_frames[:, :20] = 0
    samples = [shrink(frame) for frame in tissue_frames]
    assert find_sector(samples, (60, 80), (0, 60, 0, 80)).method == "motion"
    assert find_sector(samples, (60, 80), (5, 70, 0, 70)).method == "motion"  # a video of another size than its header


@pytest.mark.parametrize("ecg", ["", "sweep", "scroll"])
@pytest.mark.parametrize("size", [(240, 320), (480, 640), (768, 1024)])
def test_the_sector_is_kept_and_the_screen_around_it_is_not(
    draw_screen: DrawScreen, size: tuple[int, int], ecg: str
) -> None:
    for patient in range(3):
        screen = draw_screen(size, patient, ecg)
        sector = find(screen.frames)
        kept = kept_by(sector, size)
        assert sector.method == "motion"
        assert kept[screen.sector].mean() > 0.99
        assert screen.sector[kept].mean() > 0.93  # the hull also bridges the probe's curved face
        assert not (kept & (screen.static > 0) & ~screen.sector).any()
        assert abs(kept.mean() - sector.share) < 1e-6


@pytest.mark.parametrize("scale", [0.35, 0.5])
def test_a_small_sector_is_found(draw_screen: DrawScreen, scale: float) -> None:
    screen = draw_screen(scale=scale)
    kept = kept_by(find(screen.frames), screen.sector.shape)
    assert kept[screen.sector].mean() > 0.98
    assert screen.sector[kept].mean() > 0.9


@pytest.mark.parametrize(("codec", "suffix"), [("MJPG", "avi"), ("mp4v", "mp4"), ("MPG2", "mpg"), ("VP80", "webm")])
def test_lossy_videos_noise_around_text_is_not_taken_for_motion(
    tmp_path: Path, draw_screen: DrawScreen, write_video: Callable[..., Path], codec: str, suffix: str
) -> None:
    screen = draw_screen()
    file = write_video(tmp_path / f"a.{suffix}", screen.frames, codec)
    frames = np.stack([frame for _, frame in open_video(file, {}).frames(None)])
    kept = kept_by(find(frames), screen.sector.shape)
    assert kept[screen.sector].mean() > 0.99
    assert screen.sector[kept].mean() > 0.93
    assert not (kept & (screen.static > 0) & ~screen.sector).any()


@pytest.mark.parametrize("noise", [2.0, 6.0])
def test_noise_of_a_frame_grabber_is_not_taken_for_motion(draw_screen: DrawScreen, noise: float) -> None:
    screen = draw_screen()
    grabbed = 20 + 0.8 * screen.frames + np.random.default_rng(0).normal(0, noise, screen.frames.shape)
    kept = kept_by(find(np.clip(grabbed, 0, 255).astype(np.uint8)), screen.sector.shape)
    assert kept[screen.sector].mean() > 0.97
    assert screen.sector[kept].mean() > 0.93


def test_frozen_parts_and_a_title_do_not_hide_the_sector(draw_screen: DrawScreen) -> None:
    screen = draw_screen()
    title = np.full_like(screen.frames[:1], 90)
    cv2.putText(title[0], "ROE JANE", (200, 200), cv2.FONT_HERSHEY_SIMPLEX, 2, 255, 3)
    frames = np.concatenate([title, screen.frames[:12], np.repeat(screen.frames[12:13], 30, 0)])
    kept = kept_by(find(frames), screen.sector.shape)
    assert kept[screen.sector].mean() > 0.97
    assert screen.sector[kept].mean() > 0.93


def test_a_real_cines_sector_is_found(bundled: Callable[[str], Path]) -> None:
    with open_cine(bundled("examples_ybr_color.dcm")) as recording:
        frames = np.stack([frame for _, frame in recording.frames(None)])
    kept = kept_by(find(frames), frames.shape[1:])
    labels = [(slice(0, 30), slice(0, 40)), (slice(10, 145), slice(301, 320)), (slice(225, 240), slice(40, 280))]
    for rows, columns in labels:
        assert not kept[rows, columns].any()
    # What is bright at some moment within the sector's outline, as a person draws it, is kept.
    corners = np.array([(170, 25), (60, 150), (170, 198), (285, 150)])
    outline = cv2.fillConvexPoly(np.zeros((240, 320), np.uint8), corners, 1)
    assert kept[(frames.max(0) > 20) & (outline > 0)].mean() > 0.99


def test_where_no_sector_moves_the_whole_frame_is_kept_and_the_record_says_so(
    tmp_path: Path, draw_screen: DrawScreen, write_cine: Callable[..., Path]
) -> None:
    screen = draw_screen(ecg="scroll")
    frozen = np.where(screen.sector, screen.frames[0], screen.frames)  # clock and ECG run on
    scattered = np.zeros((20, 480, 640), np.uint8)
    for frame in scattered[::2]:
        frame[::40, ::40] = 255
    for name, frames in (("frozen.dcm", frozen), ("scattered.dcm", scattered)):
        clip, record = read_clip([write_cine(tmp_path / name, frames)], (16, 48, 64))
        assert clip.shape == (16, 48, 64)
        assert record["steps"][0]["method"] == "whole frame"
        assert record["steps"][0]["top_bottom_left_right"] == [0, 480, 0, 640]
        assert NOT_FOUND in record["warnings"]


def test_a_frame_that_is_all_tissue_is_kept_whole_without_a_word(
    tmp_path: Path, write_cine: Callable[..., Path], tissue_frames: np.ndarray
) -> None:
    clip, record = read_clip([write_cine(tmp_path / "a.dcm", tissue_frames)], (20, 60, 80))
    np.testing.assert_array_equal(clip, tissue_frames)
    assert record["steps"][0]["method"] == "whole frame"
    assert "warnings" not in record


def test_a_lossy_still_is_still_and_a_faint_motion_is_not(
    tmp_path: Path, draw_screen: DrawScreen, write_video: Callable[..., Path]
) -> None:
    screen = draw_screen(ecg="")
    for codec, suffix in (("MJPG", "avi"), ("mp4v", "mp4"), ("MPG2", "mpg")):
        file = write_video(tmp_path / f"a.{suffix}", np.repeat(screen.frames[:1], 30, 0), codec)
        assert is_still([shrink(frame) for _, frame in open_video(file, {}).frames(None)])
    assert not is_still([shrink(frame // 4) for frame in screen.frames])
