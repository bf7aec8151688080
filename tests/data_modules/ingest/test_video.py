import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_modules.ingest import recording
from data_modules.ingest.images import UnusableError
from data_modules.ingest.timing import DISTRUSTED
from data_modules.ingest.video import ASSUMED, fit, read_clip

WriteCine = Callable[..., Path]
FULL = (20, 60, 80)  # as the frames are, so nothing is scaled or left out


def test_a_video_keeps_its_frames_in_order(
    tmp_path: Path, write_avi: Callable[..., Path], tissue_frames: np.ndarray
) -> None:
    clip, record = read_clip([write_avi(tmp_path / "a.AVI", tissue_frames)], FULL)
    assert np.abs(clip.astype(float) - tissue_frames).mean() < 3  # motion JPEG is lossy
    assert record == {
        "source": {"format": "AVI"},
        "original": {"size": [60, 80], "frames": 20, "duration_s": 0.95, "frame_times": "time stamps"},
        "steps": [
            {
                "step": "keep the ultrasound sector",
                "method": "whole frame",
                "top_bottom_left_right": [0, 60, 0, 80],
                "share_of_frame": 1.0,
            },
            {"step": "fit", "size": [60, 80]},
            {"step": "choose frames evenly in time", "frames": list(range(20))},
        ],
        "stored": {"shape": [20, 60, 80]},
    }


@pytest.mark.parametrize("rate", [0.0, 5.0, 10.0])
def test_one_sweep_gives_one_clip_whatever_it_is_stored_as(
    tmp_path: Path,
    write_cine: WriteCine,
    write_video: Callable[..., Path],
    draw_screen: Callable[..., Any],
    rate: float,
) -> None:
    frames = draw_screen((240, 320)).frames
    pictures = [tmp_path / f"{index}.png" for index in range(len(frames))]
    for file, frame in zip(pictures, frames, strict=True):
        cv2.imwrite(str(file), frame)
    shape = (8, 64, 64)
    clip, record = read_clip([write_cine(tmp_path / "a.dcm", frames)], shape, rate)
    for files in (pictures, [write_video(tmp_path / "a.avi", frames, "FFV1")]):
        other, steps = read_clip(files, shape, rate)
        assert np.abs(other.astype(int) - clip).max() <= 1
        assert steps["steps"][-1] == record["steps"][-1]
        assert steps["original"]["duration_s"] == 1.55


def test_a_rate_takes_the_middle_and_too_short_a_clip_runs_to_and_fro(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray
) -> None:
    file = write_cine(tmp_path / "a.dcm", tissue_frames)  # 20 Hz
    clip, record = read_clip([file], (5, 60, 80), 10.0)
    np.testing.assert_array_equal(clip, tissue_frames[5:15:2])
    assert record["steps"][-1] == {
        "step": "choose frames evenly in time",
        "frame_rate": 10.0,
        "mirrored_in_time": False,
        "frames": [5, 7, 9, 11, 13],
    }
    clip, record = read_clip([write_cine(tmp_path / "b.dcm", tissue_frames[:5])], (8, 60, 80), 20.0)
    np.testing.assert_array_equal(clip, tissue_frames[[0, 1, 2, 3, 4, 3, 2, 1]])
    assert record["steps"][-1]["mirrored_in_time"] is True


def test_names_on_the_screen_are_not_in_the_clip(
    tmp_path: Path, write_video: Callable[..., Path], draw_screen: Callable[..., Any]
) -> None:
    screen = draw_screen()
    clip, record = read_clip([write_video(tmp_path / "a.mp4", screen.frames)], (32, 480, 640))
    assert record["steps"][0]["method"] == "motion"
    top, bottom, left, right = record["steps"][0]["top_bottom_left_right"]
    expected = np.where(screen.sector, screen.frames, 0)[:, top:bottom, left:right]
    expected = np.stack([fit(frame, (480, 640)) for frame in expected])
    assert np.abs(clip.astype(float) - expected).mean() < 3
    assert clip[expected == 0].mean() < 2


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


def test_a_clip_need_not_fit_into_memory(
    tmp_path: Path, write_video: Callable[..., Path], draw_screen: Callable[..., Any]
) -> None:
    frames = draw_screen().frames
    file = write_video(tmp_path / "a.mp4", np.concatenate([frames, frames[::-1]] * 6))  # 384 frames, 118 MB
    tracemalloc.start()
    clip, record = read_clip([file], (16, 64, 64), 5.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert record["original"]["frames"] == 384
    assert clip.shape == (16, 64, 64)
    assert peak < 40e6


def test_what_is_no_clip_is_rejected_with_its_reason(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    still = np.repeat(tissue_frames[:1], 9, 0)
    for frames, reason in [
        (tissue_frames[:1], "a single frame, not a clip"),
        (np.full_like(still, 9), "a still image"),
        (still, "a still image"),
    ]:
        with pytest.raises(UnusableError, match=reason):
            read_clip([write_cine(tmp_path / "a.dcm", frames)], (16, 32, 32))
    (tmp_path / "text.dcm").write_text("no DICOM object\n" * 99)
    (tmp_path / "empty.dcm").touch()
    for name, reason in [("text.dcm", "it has no pixels|unreadable"), ("empty.dcm", "an empty file")]:
        with pytest.raises(UnusableError, match=reason):
            read_clip([tmp_path / name], (16, 32, 32))
    assert capfd.readouterr() == ("", "")


def test_a_rate_at_which_all_frames_are_one_is_refused(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray
) -> None:
    with pytest.raises(UnusableError, match="16 frames at 1000 Hz all fall on one frame"):
        read_clip([write_cine(tmp_path / "a.dcm", tissue_frames)], (16, 32, 32), 1000.0)


@pytest.mark.parametrize("rate", [1000.0, 0.2])
def test_a_video_of_an_absurd_rate_keeps_the_order_of_its_frames(
    tmp_path: Path, write_video: Callable[..., Path], tissue_frames: np.ndarray, rate: float
) -> None:
    clip, record = read_clip([write_video(tmp_path / "a.avi", tissue_frames, "FFV1", rate)], (5, 60, 80), 5.0)
    np.testing.assert_array_equal(record["steps"][-1]["frames"], 1 + 4 * np.arange(5))  # as at 20 Hz
    np.testing.assert_array_equal(clip, tissue_frames[1::4])
    assert record["warnings"] == [DISTRUSTED, ASSUMED]


def test_a_clip_shorter_than_a_step_of_the_rate_is_refused(
    tmp_path: Path, write_cine: WriteCine, tissue_frames: np.ndarray
) -> None:
    with pytest.raises(UnusableError, match="it lasts 150 ms, less than one step at 5 Hz: raise --frame_rate"):
        read_clip([write_cine(tmp_path / "a.dcm", tissue_frames[:4])], (16, 32, 32), 5.0)
    _, record = read_clip([write_cine(tmp_path / "a.dcm", tissue_frames[:5])], (4, 32, 32), 5.0)
    assert record["steps"][-1]["frames"] == [0, 4, 0, 4]
    assert read_clip([write_cine(tmp_path / "a.dcm", tissue_frames[:4])], (4, 60, 80))[0].shape == (4, 60, 80)


def test_a_clip_of_no_end_is_left_before_its_end(
    tmp_path: Path, write_video: Callable[..., Path], tissue_frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_CLIP", 10 * tissue_frames[0].size)
    with pytest.raises(UnusableError, match="11 frames of 60 x 80 pixels are too many for a clip"):
        read_clip([write_video(tmp_path / "a.mkv", tissue_frames)], (16, 32, 32))
